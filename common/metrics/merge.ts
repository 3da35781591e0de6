/**
 * Expositions of several processes as one: a collector asks one port and sees them all, each sample with the label that says whose it is. Families stay
 * together, as the format wants it (Prometheus text format 0.0.4).
 */

/** One process's exposition. */
export interface LabelledExposition {
  /** Put first in every sample, e.g. `worker="2"`. */
  readonly label: string;
  readonly text: string;
}

interface Family {
  /** HELP and TYPE. */
  readonly head: string[];
  readonly samples: string[];
}

/** The expositions as one. A family has the help and type of the first that has it. */
export function mergeExpositions(expositions: readonly LabelledExposition[]): string {
  const families = new Map<string, Family>();
  for (const { label, text } of expositions) {
    let family: Family | undefined;
    let isFirst = true;
    for (const line of text.split('\n')) {
      const comment = /^# (?:HELP|TYPE) (\S+)/.exec(line);
      if (comment !== null) {
        const name = comment[1] as string;
        if (families.get(name) !== family || family === undefined) {
          isFirst = !families.has(name);
          family = families.get(name) ?? { head: [], samples: [] };
          families.set(name, family);
        }
        if (isFirst) family.head.push(line);
      } else if (line !== '' && !line.startsWith('#')) {
        family?.samples.push(withLabel(line, label));
      }
    }
  }
  return `${[...families.values()].flatMap(({ head, samples }) => [...head, ...samples]).join('\n')}\n`;
}

function withLabel(sample: string, label: string): string {
  const end = /^[a-zA-Z_:][a-zA-Z0-9_:]*/.exec(sample)?.[0].length ?? 0;
  const isLabelled = sample[end] === '{';
  const hasOthers = isLabelled && sample[end + 1] !== '}';
  return `${sample.slice(0, end)}{${label}${hasOthers ? ',' : ''}${isLabelled ? sample.slice(end + 1) : `}${sample.slice(end)}`}`;
}
