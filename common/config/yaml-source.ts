/**
 * A YAML text with the position of everything in it, so that a mistake found later can still be shown where it was made.
 */
import { isMap, isSeq, LineCounter, type Node, parseDocument, stringify } from 'yaml';

/** Where in a file; both count from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** A mistake of the YAML itself. */
export interface YamlMistake extends Position {
  readonly message: string;
}

/** A parsed text. */
export interface YamlSource {
  /** Plain data. */
  readonly data: unknown;
  readonly mistakes: readonly YamlMistake[];
  /** Position of the value at `path`; of the nearest parent when there is none. */
  valueAt(path: readonly (string | number)[]): Position;
  /** Position of the key at `path`; of the nearest parent when there is none. */
  keyAt(path: readonly (string | number)[]): Position;
}

/** Mistakes of one text that are told; nobody reads the thousandth. */
const mistakesMax = 20;
/** Levels of lists and maps in each other; a node file has six. */
const depthMax = 64;

/** Parses YAML 1.2. Never throws: what is wrong is in `mistakes`. Aliases may multiply the text by at most 100, and may not contain themselves. */
export function parseYaml(text: string): YamlSource {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, version: '1.2' });
  const position = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  const mistakes: YamlMistake[] = [...document.errors, ...document.warnings].slice(0, mistakesMax).map((error) => ({
    ...position(error.pos[0]),
    message: error.message.replace(/\s+/g, ' '),
  }));
  let data: unknown;
  if (mistakes.length === 0) {
    try {
      data = document.toJS({ maxAliasCount: 100 });
      if (isDeeperThan(data, depthMax)) {
        data = undefined;
        mistakes.push({
          line: 1,
          column: 1,
          message: `lists and maps are nested deeper than ${depthMax} levels, or an alias contains itself`,
        });
      }
    } catch (error) {
      mistakes.push({ line: 1, column: 1, message: error instanceof Error ? error.message : String(error) });
    }
  }

  const offsetOf = (path: readonly (string | number)[], wantsKey: boolean): number => {
    let node: unknown = document.contents;
    let offset = startOf(node) ?? 0;
    for (const [index, step] of path.entries()) {
      if (isMap(node)) {
        const pair = node.items.find((item) => String((item.key as { value?: unknown } | null)?.value) === String(step));
        if (pair === undefined) return offset;
        const keyOffset = startOf(pair.key) ?? offset;
        const valueOffset = startOf(pair.value) ?? keyOffset;
        offset = wantsKey && index === path.length - 1 ? keyOffset : valueOffset;
        node = pair.value;
      } else if (isSeq(node)) {
        node = node.items[Number(step)];
        offset = startOf(node) ?? offset;
      } else {
        return offset;
      }
    }
    return offset;
  };
  return {
    data,
    mistakes,
    valueAt: (path) => position(offsetOf(path, false)),
    keyAt: (path) => position(offsetOf(path, true)),
  };
}

/** Plain data as YAML text; what is `undefined` is left out. */
export function toYaml(data: unknown): string {
  return stringify(data, { lineWidth: 0, aliasDuplicateObjects: false });
}

function isDeeperThan(data: unknown, levels: number): boolean {
  if (typeof data !== 'object' || data === null) return false;
  return levels === 0 || Object.values(data).some((value) => isDeeperThan(value, levels - 1));
}

function startOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}
