/**
 * Counters, gauges and histograms in Prometheus form. One registry per process, passed in; the only importer of the client library.
 * Names start with `archipelago_`, use base units and end in `_total` for counters. Labels have few values: never an account or address.
 */
import { createRequire } from 'node:module';
import type * as Client from '@prometheus-io/client';
import { type LabelledExposition, mergeExpositions } from '#common/metrics/merge.ts';

// By its parts: as a whole it brings tracing, clusters of processes and a gateway, 80 files that nothing here needs, to every start of a program.
const load = createRequire(import.meta.url);
const Counter: typeof Client.Counter = load('@prometheus-io/client/lib/counter');
const Gauge: typeof Client.Gauge = load('@prometheus-io/client/lib/gauge');
const Histogram: typeof Client.Histogram = load('@prometheus-io/client/lib/histogram');
const Registry: typeof Client.Registry = load('@prometheus-io/client/lib/registry');

type Labels = Record<string, string>;

/** Makes metrics; asking twice for one name gives the same metric. */
export interface Metrics {
  counter(name: string, help: string, labelNames?: readonly string[]): { add(labels?: Labels, value?: number): void };
  gauge(name: string, help: string, labelNames?: readonly string[]): { set(labels: Labels, value: number): void };
  histogram(
    name: string,
    help: string,
    labelNames?: readonly string[],
    buckets?: readonly number[],
  ): { observe(labels: Labels, value: number): void };
  /** `collect` runs before each exposition and sets gauges. */
  onCollect(collect: () => void): void;
  /** The same registry with these labels on every metric: one view per service of a process, all with the same label names. */
  withLabels(fixed: Labels): Metrics;
  /** The text exposition. */
  render(): Promise<string>;
}

/**
 * A registry of its own.
 *
 * @param others expositions of the processes beside this one, which is then worker 1
 */
export function createMetrics(others: () => Promise<readonly LabelledExposition[]> = async () => []): Metrics {
  return view({ registry: new Registry(), known: new Map(), collectors: [], pending: [], others }, {});
}

interface Shared {
  readonly registry: Client.Registry;
  readonly known: Map<string, unknown>;
  readonly collectors: (() => void)[];
  /** What has been counted and not handed over to the registry. */
  readonly pending: (() => void)[];
  readonly others: () => Promise<readonly LabelledExposition[]>;
}

const noLabels: Labels = {};

const secondsBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

function view(shared: Shared, fixed: Labels): Metrics {
  const { registry, known, collectors, pending } = shared;
  const names = (labelNames: readonly string[]): string[] => [...Object.keys(fixed), ...labelNames];
  const once = <T>(name: string, make: () => T): T => {
    const found = known.get(name) as T | undefined;
    if (found !== undefined) return found;
    const made = make();
    known.set(name, made);
    return made;
  };
  return {
    counter: (name, help, labelNames = []) =>
      once(`${name} as seen by ${JSON.stringify(fixed)}`, () => {
        const counter = once(name, () => new Counter({ name, help, labelNames: names(labelNames), registers: [registry] }));
        const series = seriesOf(labelNames, (labels) => {
          const all = { ...fixed, ...labels };
          // It shows from now on, and what is wrong with its labels is said now.
          counter.inc(all, 0);
          return { all, pending: 0 };
        });
        // Counted here, and handed over when somebody asks: some are counted for every session.
        pending.push(() => {
          for (const one of series.known) {
            if (one.pending > 0) counter.inc(one.all, one.pending);
            one.pending = 0;
          }
        });
        return {
          add(labels: Labels = noLabels, value = 1) {
            if (value < 0 || !Number.isFinite(value)) throw new RangeError(`${name} cannot count ${value}`);
            series.find(labels).pending += value;
          },
        };
      }),
    gauge(name, help, labelNames = []) {
      const gauge = once(name, () => new Gauge({ name, help, labelNames: names(labelNames), registers: [registry] }));
      return { set: (labels: Labels, value: number) => gauge.set({ ...fixed, ...labels }, value) };
    },
    histogram(name, help, labelNames = [], buckets = secondsBuckets) {
      const histogram = once(
        name,
        () => new Histogram({ name, help, labelNames: names(labelNames), buckets: [...buckets], registers: [registry] }),
      );
      const series = seriesOf(labelNames, (labels) => histogram.labels({ ...fixed, ...labels }));
      return { observe: (labels: Labels, value: number) => series.find(labels).observe(value) };
    },
    onCollect: (collect) => {
      collectors.push(collect);
    },
    withLabels: (more) => view(shared, { ...fixed, ...more }),
    async render() {
      for (const collect of collectors) collect();
      for (const handOver of pending) handOver();
      const text = await registry.metrics();
      const others = await shared.others();
      return others.length === 0 ? text : mergeExpositions([{ label: 'worker="1"', text }, ...others]);
    },
  };
}

/** What belongs to each set of label values, made when one is first met: the library checks and joins them at every call. */
function seriesOf<T>(
  labelNames: readonly string[],
  make: (labels: Labels) => T,
): { find(labels: Labels): T; readonly known: readonly T[] } {
  // A map in a map for each further label: a key made of all values would have to be put together and hashed at every call.
  type Level = Map<string, Level | T>;
  const top: Level = new Map();
  const known: T[] = [];
  const last = labelNames.length - 1;
  return {
    known,
    find(labels) {
      let level = top;
      for (let i = 0; i < last; i += 1) {
        const value = labels[labelNames[i] as string] ?? '';
        let next = level.get(value) as Level | undefined;
        if (next === undefined) {
          next = new Map();
          level.set(value, next);
        }
        level = next;
      }
      const value = last < 0 ? '' : (labels[labelNames[last] as string] ?? '');
      let found = level.get(value) as T | undefined;
      if (found === undefined) {
        found = make(labels);
        known.push(found);
        level.set(value, found);
      }
      return found;
    },
  };
}
