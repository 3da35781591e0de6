/**
 * Counters, gauges and histograms in Prometheus form. One registry per process, passed in; the only importer of the client library.
 * Names start with `archipelago_`, use base units and end in `_total` for counters. Labels have few values: never an account or address.
 */
import { Counter, Gauge, Histogram, Registry } from '@prometheus-io/client';

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

/** A registry of its own. */
export function createMetrics(): Metrics {
  return view({ registry: new Registry(), known: new Map(), collectors: [] }, {});
}

interface Shared {
  readonly registry: Registry;
  readonly known: Map<string, unknown>;
  readonly collectors: (() => void)[];
}

const secondsBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

function view(shared: Shared, fixed: Labels): Metrics {
  const { registry, known, collectors } = shared;
  const names = (labelNames: readonly string[]): string[] => [...Object.keys(fixed), ...labelNames];
  const once = <T>(name: string, make: () => T): T => {
    const found = known.get(name) as T | undefined;
    if (found !== undefined) return found;
    const made = make();
    known.set(name, made);
    return made;
  };
  return {
    counter(name, help, labelNames = []) {
      const counter = once(name, () => new Counter({ name, help, labelNames: names(labelNames), registers: [registry] }));
      return { add: (labels: Labels = {}, value = 1) => counter.inc({ ...fixed, ...labels }, value) };
    },
    gauge(name, help, labelNames = []) {
      const gauge = once(name, () => new Gauge({ name, help, labelNames: names(labelNames), registers: [registry] }));
      return { set: (labels: Labels, value: number) => gauge.set({ ...fixed, ...labels }, value) };
    },
    histogram(name, help, labelNames = [], buckets = secondsBuckets) {
      const histogram = once(
        name,
        () => new Histogram({ name, help, labelNames: names(labelNames), buckets: [...buckets], registers: [registry] }),
      );
      return { observe: (labels: Labels, value: number) => histogram.observe({ ...fixed, ...labels }, value) };
    },
    onCollect: (collect) => {
      collectors.push(collect);
    },
    withLabels: (more) => view(shared, { ...fixed, ...more }),
    render() {
      for (const collect of collectors) collect();
      return registry.metrics();
    },
  };
}
