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
  /** The text exposition. */
  render(): Promise<string>;
}

/** A registry of its own. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const known = new Map<string, unknown>();
  const collectors: (() => void)[] = [];
  const once = <T>(name: string, make: () => T): T => {
    const found = known.get(name) as T | undefined;
    if (found !== undefined) return found;
    const made = make();
    known.set(name, made);
    return made;
  };
  return {
    counter: (name, help, labelNames = []) =>
      once(name, () => {
        const counter = new Counter({ name, help, labelNames: [...labelNames], registers: [registry] });
        return { add: (labels: Labels = {}, value = 1) => counter.inc(labels, value) };
      }),
    gauge: (name, help, labelNames = []) =>
      once(name, () => {
        const gauge = new Gauge({ name, help, labelNames: [...labelNames], registers: [registry] });
        return { set: (labels: Labels, value: number) => gauge.set(labels, value) };
      }),
    histogram: (name, help, labelNames = [], buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]) =>
      once(name, () => {
        const histogram = new Histogram({ name, help, labelNames: [...labelNames], buckets: [...buckets], registers: [registry] });
        return { observe: (labels: Labels, value: number) => histogram.observe(labels, value) };
      }),
    onCollect: (collect) => {
      collectors.push(collect);
    },
    render() {
      for (const collect of collectors) collect();
      return registry.metrics();
    },
  };
}
