/**
 * What verbs print: one document, and a table made of it. Only the json, jsonl and yaml forms are stable; tables are for eyes, without
 * borders so that grep and awk like them too. State is a word and a sign, never a colour alone.
 */
import { styleText } from 'node:util';
import type { ExitCode, Terminal } from './terminal.ts';

/** Forms of output. */
export const outputFormats = ['table', 'wide', 'json', 'jsonl', 'yaml', 'name'] as const;
export type OutputFormat = (typeof outputFormats)[number];

/** What a verb has found. */
export interface VerbResult {
  /** The stable form. */
  readonly document: unknown;
  /** jsonl: one line each; without it the document is the only line. */
  readonly rows?: readonly unknown[];
  /** name: one line each. */
  readonly names: readonly string[];
  /** table and wide. */
  render(paint: Paint, isWide: boolean): string;
  readonly exitCode: ExitCode;
}

/** Prints a result. */
export async function emit(terminal: Terminal, format: OutputFormat, result: VerbResult): Promise<void> {
  switch (format) {
    case 'json':
      terminal.out(`${JSON.stringify(result.document, null, 2)}\n`);
      return;
    case 'jsonl':
      for (const row of result.rows ?? [result.document]) terminal.out(`${JSON.stringify(row)}\n`);
      return;
    case 'yaml': {
      const { toYaml } = await import('#common/config/yaml-source.ts');
      terminal.out(toYaml(result.document));
      return;
    }
    case 'name':
      for (const name of result.names) terminal.out(`${name}\n`);
      return;
    default:
      terminal.out(result.render(paintFor(terminal), format === 'wide'));
  }
}

/** Colours and signs that suit the terminal; plain words when it is none or `NO_COLOR` is set (no-color.org). */
export interface Paint {
  ok(text: string): string;
  warn(text: string): string;
  bad(text: string): string;
  strong(text: string): string;
  faint(text: string): string;
}

/** Colours for this terminal. */
export function paintFor(terminal: Pick<Terminal, 'env' | 'isTerminal'>): Paint {
  const hasColour = terminal.isTerminal && (terminal.env.NO_COLOR ?? '') === '' && terminal.env.TERM !== 'dumb';
  const colour = (style: Parameters<typeof styleText>[0]) => (text: string) =>
    hasColour ? styleText(style, text, { validateStream: false }) : text;
  const sign = (unicode: string, ascii: string): string => (terminal.isTerminal ? unicode : ascii);
  const [green, yellow, red] = [colour('green'), colour('yellow'), colour('red')];
  return {
    ok: (text) => green(`${sign('✓', '+')} ${text}`),
    warn: (text) => yellow(`${sign('▲', '!')} ${text}`),
    bad: (text) => red(`${sign('✗', 'x')} ${text}`),
    strong: colour('bold'),
    faint: colour('dim'),
  };
}

/** A table without borders: columns two spaces apart, no spaces at a line's end. */
export function table(paint: Paint, head: readonly string[], rows: readonly (readonly string[])[]): string {
  return new GrowingTable(paint, head).add(rows);
}

/** A table that is printed part by part; its columns become no narrower. */
export class GrowingTable {
  readonly #paint: Paint;
  readonly #head: readonly string[];
  readonly #widths: number[];
  #hasHead = false;

  constructor(paint: Paint, head: readonly string[]) {
    this.#paint = paint;
    this.#head = head;
    this.#widths = head.map(width);
  }

  /** The next rows as text, under the head the first time. */
  add(rows: readonly (readonly string[])[]): string {
    for (const row of rows)
      for (const [column, cell] of row.entries()) this.#widths[column] = Math.max(this.#widths[column] ?? 0, width(cell));
    const head = this.#hasHead ? [] : [this.#paint.strong(this.#line(this.#head))];
    this.#hasHead = true;
    return [...head, ...rows.map((row) => this.#line(row))].map((text) => `${text}\n`).join('');
  }

  #line(cells: readonly string[]): string {
    return cells
      .map((cell, column) => `${cell}${' '.repeat((this.#widths[column] ?? 0) - width(cell) + 2)}`)
      .join('')
      .trimEnd();
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: colour sequences start with ESC
const colourSequence = /\u001b\[[0-9;]*m/g;
const width = (text: string): number => [...text.replace(colourSequence, '')].length;

/** `340 ms`, `12 s`, `5 min`, `3 h`, `2 d` */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

/** `1.2 MB` */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
