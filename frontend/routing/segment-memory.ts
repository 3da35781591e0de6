/** Where the route index has its segments: in the process's own memory, or in such that other processes read (shared-index.ts). */
import type { RouteSegment } from './route-segment.ts';

/** See the header of this file. */
export interface SegmentMemory {
  /** All zeros. */
  allocate(bytes: number): Uint8Array<ArrayBuffer>;
  /** Memory of a snapshot; a copy of it where it was not allocated here. */
  adopt(memory: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>;
  /** The index needs it no more; whoever has an image that is not disposed of may still. */
  free(memory: Uint8Array<ArrayBuffer>): void;
  /** What was freed stays readable until what this returns is called. */
  hold(): () => void;
  /** Something changes, until `changed`: whoever reads meanwhile has to read again. */
  changing(): void;
  changed(): void;
  /** These places of the directory have this segment. */
  placed(segment: RouteSegment, first: number, count: number): void;
  /** The directory as a whole, with `2 ** depth` places. */
  directed(directory: readonly RouteSegment[], depth: number): void;
}

/** Of this process alone. */
export const ownMemory: SegmentMemory = {
  allocate: (bytes) => new Uint8Array(bytes),
  adopt: (memory) => memory,
  free: () => {},
  hold: () => () => {},
  changing: () => {},
  changed: () => {},
  placed: () => {},
  directed: () => {},
};
