/**
 * The routes on the frontend's own disk, so that a restart is a catch-up and not a refresh, and a frontend that starts while its directory
 * is down knows every account.
 *
 *   snapshot.json          what belongs together: hash key, clusters, domains, position in the directory, the parts with their CRCs
 *   part-<number>-<n>      segments of the index, as they are in memory; at most `partBytesMax` and one segment each
 *
 * Parts are written first, the JSON file replaces the one before in one step, then parts that it does not name are removed. The index
 * goes on changing while parts are written: the position is taken first, so what changed meanwhile is told again after a restart, and
 * telling it twice does no harm. What cannot be read, or is of another suffix or identity, counts as missing: routes are read anew.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Clock } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { ClusterName } from '#common/host-server.ts';
import type { Logger } from '#common/log/logger.ts';
import type { FollowedPosition } from '#directory/client/directory.ts';
import type { ClusterRecord, DomainRecord, SubsetRecord } from '#directory/client/records.ts';
import type { RouteIndexImage } from './route-index.ts';
import type { KnownRoutes, Routes } from './routes.ts';
import { ownMemory, type SegmentMemory } from './segment-memory.ts';

const format = 2;
const partBytesMax = 16 * 1024 * 1024;

/** A snapshot, read. */
export interface ReadSnapshot extends KnownRoutes {
  readonly position: FollowedPosition;
  /** This machine's wall clock. */
  readonly takenAtMs: number;
}

/** Which directory the routes are of: a snapshot of another one is not used. */
export interface SnapshotOrigin {
  readonly urls: readonly string[];
  readonly suffix: string;
  readonly bindDn: string;
}

interface Part {
  readonly name: string;
  readonly crc: number;
  readonly segments: readonly { readonly prefix: number; readonly depth: number; readonly bytes: number }[];
}

interface Manifest {
  readonly format: number;
  readonly suffix: string;
  readonly bindDn: string;
  readonly takenAtMs: number;
  readonly position: { readonly url: string; readonly cookie: string; readonly domainDns: FollowedPosition['domainDns'] };
  readonly key: string;
  readonly refresh: number;
  readonly clusterNames: readonly ClusterName[];
  readonly domains: readonly DomainRecord[];
  readonly clusters: readonly ClusterRecord[];
  /** Missing where an earlier release wrote it, which did not follow them. */
  readonly subsets?: readonly SubsetRecord[];
  readonly parts: readonly Part[];
}

/** Snapshots of one frontend, in a directory of their own. */
export class RouteSnapshots {
  readonly #directory: string;
  readonly #origin: SnapshotOrigin;
  readonly #files: Files;
  readonly #clock: Clock;
  readonly #log: Logger;
  #writing: Promise<void> | undefined;

  constructor(options: {
    readonly directory: string;
    readonly origin: SnapshotOrigin;
    readonly files: Files;
    readonly clock: Clock;
    readonly log: Logger;
  }) {
    this.#directory = options.directory;
    this.#origin = options.origin;
    this.#files = options.files;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /**
   * The last snapshot; `undefined` when there is none that can be used, which is logged unless it is simply missing.
   *
   * @param options `withoutIndex` where another process keeps that; `memory`, into which segments are read, is that of the index to be
   */
  async read(
    options: { readonly withoutIndex?: boolean; readonly memory?: SegmentMemory | undefined } = {},
  ): Promise<ReadSnapshot | undefined> {
    const { withoutIndex = false, memory = ownMemory } = options;
    const segments: RouteIndexImage['segments'][number][] = [];
    try {
      return await this.#read(withoutIndex, memory, segments);
    } catch (error) {
      for (const segment of segments) memory.free(segment.memory);
      if (errnoOf(error) !== 'ENOENT') this.#log.warn({}, `the snapshot of routes is not used, they are read anew: ${messageOf(error)}`);
      return undefined;
    }
  }

  /** Writes one. Rejects when it cannot be written; the one before is then still there. At most one is written at a time. */
  write(routes: Routes, position: FollowedPosition): Promise<void> {
    this.#writing ??= this.#write(routes, position).finally(() => {
      this.#writing = undefined;
    });
    return this.#writing;
  }

  async #read(withoutIndex: boolean, memory: SegmentMemory, segments: RouteIndexImage['segments'][number][]): Promise<ReadSnapshot> {
    const manifest = JSON.parse((await this.#files.read(join(this.#directory, 'snapshot.json'))).toString()) as Manifest;
    if (manifest.format !== format) throw unusable(`its format is ${manifest.format}, this release reads ${format}`);
    const { urls, suffix, bindDn } = this.#origin;
    if (manifest.suffix !== suffix || manifest.bindDn !== bindDn) {
      throw unusable(`it is of ${manifest.suffix} as seen by ${manifest.bindDn}, and ${suffix} as seen by ${bindDn} is configured`);
    }
    if (!urls.includes(manifest.position.url)) throw unusable(`it is of ${manifest.position.url}, which is none of this subset’s servers`);
    for (const part of withoutIndex ? [] : manifest.parts) {
      const content = await this.#files.read(join(this.#directory, part.name));
      if (crc32(content) !== part.crc) throw unusable(`${part.name} is damaged`);
      let at = 0;
      for (const { prefix, depth, bytes } of part.segments) {
        const segment = memory.allocate(bytes);
        segments.push({ prefix, depth, memory: segment });
        segment.set(content.subarray(at, at + bytes));
        at += bytes;
      }
    }
    return {
      index: withoutIndex
        ? undefined
        : { key: Buffer.from(manifest.key, 'hex'), refresh: manifest.refresh, clusters: manifest.clusterNames, segments },
      domains: manifest.domains,
      clusters: manifest.clusters,
      subsets: manifest.subsets ?? [],
      // From a position of a release that did not follow subsets a server would never name those that are there already.
      position: {
        ...manifest.position,
        cookie: manifest.subsets === undefined ? undefined : Buffer.from(manifest.position.cookie, 'base64'),
      },
      takenAtMs: manifest.takenAtMs,
    };
  }

  async #write(routes: Routes, position: FollowedPosition): Promise<void> {
    const { index, domains, topology, subsets } = routes;
    const takenAtMs = this.#clock.nowMs();
    const named = { domains: [...domains.records()], clusters: [...topology.clusters.values()], subsets: [...subsets] };
    // The segments as of now; one that is replaced by larger ones meanwhile still holds what it held when the position was taken.
    using image = index.image();
    await this.#files.mkdirAll(this.#directory);
    const parts: Part[] = [];
    for (let at = 0; at < image.segments.length; ) {
      const taken: { prefix: number; depth: number; bytes: number }[] = [];
      const pieces: Buffer[] = [];
      for (let bytes = 0; at < image.segments.length && bytes < partBytesMax; at += 1) {
        const { prefix, depth, memory } = image.segments[at] as RouteIndexImage['segments'][number];
        // A copy: what is written must be what the CRC is of.
        pieces.push(Buffer.from(memory));
        taken.push({ prefix, depth, bytes: memory.byteLength });
        bytes += memory.byteLength;
      }
      const content = Buffer.concat(pieces);
      const name = `part-${takenAtMs}-${parts.length}`;
      await this.#files.writeNew(join(this.#directory, name), [content]);
      parts.push({ name, crc: crc32(content), segments: taken });
    }
    const manifest: Manifest = {
      format,
      suffix: this.#origin.suffix,
      bindDn: this.#origin.bindDn,
      takenAtMs,
      position: { ...position, cookie: position.cookie?.toString('base64') ?? '' },
      key: image.key.toString('hex'),
      refresh: image.refresh,
      clusterNames: image.clusters,
      ...named,
      parts,
    };
    await this.#files.syncDirectory(this.#directory);
    await this.#files.replace(join(this.#directory, 'snapshot.json'), JSON.stringify(manifest));
    const current = new Set(parts.map(({ name }) => name));
    for (const name of await this.#files.list(this.#directory)) {
      if (name.startsWith('part-') && !current.has(name)) await this.#files.unlink(join(this.#directory, name));
    }
  }
}

function unusable(why: string): PlatformError {
  return new PlatformError('CONFIG_UNREADABLE', why);
}
