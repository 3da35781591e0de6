/**
 * `archipelago replica verify | diff | repair`: what differs is printed as it comes, in each form of output, so that a million differences
 * take no memory here and a reader such as `head` or `jq` sets the pace. On a terminal a line says how far it is.
 */
import { StringDecoder } from 'node:string_decoder';
import { toYaml } from '#common/config/yaml-source.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import { problemAsError } from '#common/http/client.ts';
import type { StreamAnswer } from '#common/http/stream-client.ts';
import type { ComparisonLine, FoundReport, ListedDifference, ReplicaActionReport } from '../../api/reports.ts';
import type { AskStream } from '../connect.ts';
import { GrowingTable, type OutputFormat, paintFor } from '../output.ts';
import { type ExitCode, exitCodes, type Terminal } from '../terminal.ts';

const linesType = 'application/x-ndjson';
const lineBytesMax = 1_048_576;
/** Differences that are printed together. */
const rowsAtATime = 500;
const repairedHead = 'REPAIRED BY';

/** How it is asked for. */
export interface ComparisonRequest {
  readonly name: string;
  readonly action: 'verify' | 'diff' | 'repair';
  readonly body: { readonly dryRun?: boolean; readonly allowDeletes?: boolean };
  readonly output: OutputFormat;
}

/** Asks, and prints the answer. Ends with 4 when something differs still. */
export async function compareReplica(terminal: Terminal, ask: AskStream, request: ComparisonRequest): Promise<ExitCode> {
  const { name, action, body } = request;
  const progress = new ProgressLine(terminal);
  let answer: StreamAnswer | undefined;
  try {
    answer = await ask(`/api/v1/replicas/${encodeURIComponent(name)}/${action}`, {
      method: 'POST',
      contentType: 'application/json',
      accept: linesType,
      body: (async function* () {
        yield Buffer.from(JSON.stringify(body));
      })(),
    });
    const printer = printerFor(terminal, request);
    let found: FoundReport | undefined;
    let rows: ListedDifference[] = [];
    const flush = async (): Promise<boolean> => {
      if (rows.length > 0) printer.rows(rows);
      rows = [];
      return terminal.flushed();
    };
    for await (const line of linesOf(answer, name)) {
      if ('progress' in line) progress.show(line.progress);
      else if ('found' in line) {
        progress.clear();
        found = line.found;
        printer.found(line.found);
      } else if ('difference' in line) {
        rows.push(line.difference);
        if (rows.length >= rowsAtATime && !(await flush())) return exitCodes.degraded;
      } else if ('problem' in line) {
        await flush();
        throw problemAsError(line.problem.status, line.problem, new URL('http://admin-api'));
      } else {
        progress.clear();
        await flush();
        printer.end(line.end);
        await terminal.flushed();
        const left = line.end.after?.differing ?? found?.differing ?? line.end.differing ?? 0;
        return left === 0 ? exitCodes.ok : exitCodes.degraded;
      }
    }
    throw cutOff(name);
  } finally {
    progress.clear();
    answer?.destroy();
  }
}

function cutOff(name: string, cause?: unknown): PlatformError {
  return new PlatformError(
    'NET_CLOSED',
    `the answer about ${name} was cut off, so nothing is known of what had not come; see the log of the replication service, and ask again`,
    { cause },
  );
}

async function* linesOf(answer: StreamAnswer, name: string): AsyncGenerator<ComparisonLine> {
  const type = answer.headers['content-type'] ?? 'nothing';
  if (!type.startsWith(linesType))
    throw new PlatformError(
      'PROTO_SYNTAX',
      `the admin API answered ${type} instead of ${linesType}: is it of the release of this command?`,
    );
  const decoder = new StringDecoder('utf8');
  let rest = '';
  for await (const chunk of chunksOf(answer, name)) {
    const lines = `${rest}${decoder.write(chunk)}`.split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > lineBytesMax)
      throw new PlatformError('PROTO_SYNTAX', `a line of the answer is longer than ${lineBytesMax} characters`);
    for (const line of lines) yield JSON.parse(line) as ComparisonLine;
  }
}

async function* chunksOf(answer: AsyncIterable<Buffer>, name: string): AsyncGenerator<Buffer> {
  try {
    yield* answer;
  } catch (error) {
    throw cutOff(name, error);
  }
}

/** What is printed of an answer, in its order. */
interface Printer {
  found(report: FoundReport): void;
  rows(rows: readonly ListedDifference[]): void;
  end(report: ReplicaActionReport): void;
}

function printerFor(terminal: Terminal, { name, action, body, output }: ComparisonRequest): Printer {
  switch (output) {
    case 'json':
      return jsonPrinter(terminal, name);
    case 'yaml':
      return yamlPrinter(terminal, name);
    case 'jsonl':
      return rowPrinter(terminal, action, (row) => JSON.stringify(row));
    case 'name':
      return rowPrinter(terminal, action, (row) => ('dn' in row ? row.dn : name));
    default:
      return tablePrinter(terminal, name, action !== 'repair' ? undefined : body.dryRun === true ? 'TO DO' : repairedHead);
  }
}

/** A line for each difference; for a comparison that lists none, one for its end. */
function rowPrinter(
  terminal: Terminal,
  action: ComparisonRequest['action'],
  text: (row: ListedDifference | ReplicaActionReport) => string,
): Printer {
  return {
    found: () => {},
    rows: (rows) => terminal.out(rows.map((row) => `${text(row)}\n`).join('')),
    end: (report) => terminal.out(action === 'verify' ? `${text(report)}\n` : ''),
  };
}

/** One document. The list is the last of what was found, one difference a line, and is closed when all of it has come. */
function jsonPrinter(terminal: Terminal, replica: string): Printer {
  const member = (name: string, value: unknown): string => `${JSON.stringify(name)}: ${JSON.stringify(value)}`;
  let rowsPrinted = 0;
  let isOpen = false;
  return {
    found(report) {
      isOpen = true;
      const members = Object.entries(report).map(([name, value]) => `    ${member(name, value)},\n`);
      terminal.out(`{\n  ${member('replica', replica)},\n  "before": {\n${members.join('')}    "differences": [`);
    },
    rows(rows) {
      terminal.out(rows.map((row, i) => `${rowsPrinted + i === 0 ? '' : ','}\n      ${JSON.stringify(row)}`).join(''));
      rowsPrinted += rows.length;
    },
    end({ result, after }) {
      const open = isOpen ? `${rowsPrinted === 0 ? '' : '\n    '}]\n  }` : `{\n  ${member('replica', replica)}`;
      terminal.out(`${open},\n  ${member('result', result)}${after === undefined ? '' : `,\n  ${member('after', after)}`}\n}\n`);
    },
  };
}

function yamlPrinter(terminal: Terminal, replica: string): Printer {
  const indented = (text: string, by: string): string => text.replace(/^(?=.)/gm, by);
  return {
    found(report) {
      terminal.out(toYaml({ replica }));
      terminal.out(`before:\n${indented(toYaml(report), '  ')}  differences:${report.listed === 0 ? ' []' : ''}\n`);
    },
    rows: (rows) => terminal.out(indented(toYaml(rows), '    ')),
    end({ result, after }) {
      terminal.out(toYaml({ result, ...(after === undefined ? {} : { after }) }));
    },
  };
}

function tablePrinter(terminal: Terminal, name: string, todoHead: string | undefined): Printer {
  const paint = paintFor(terminal);
  const table = new GrowingTable(paint, [todoHead ?? 'DIFFERENCE', 'ENTRY', 'WHAT', 'UUID']);
  return {
    found({ refusal, listed, differing }) {
      if (refusal !== undefined && todoHead !== repairedHead) terminal.out(`${paint.warn(`a repair would not begin: ${refusal}`)}\n`);
      if (listed < differing) terminal.out(`${paint.warn(`${differing} entries differ, of which ${listed} are listed`)}\n`);
    },
    rows(rows) {
      terminal.out(
        table.add(rows.map((row) => [todoHead === undefined ? row.kind : row.todo.join(', '), row.dn, whatText(row), row.uuid])),
      );
    },
    end: ({ result }) => terminal.out(`${name}: ${result}\n`),
  };
}

function whatText({ what, replicaDn }: ListedDifference): string {
  return what.map((one) => (one === 'dn' && replicaDn !== undefined ? `dn (there "${replicaDn}")` : one)).join(', ');
}

/** One line on standard error that is written over; only where somebody looks. */
class ProgressLine {
  readonly #terminal: Terminal;
  #width = 0;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show({ step, entries, ofEntries }: { readonly step: string; readonly entries: number; readonly ofEntries: number | undefined }): void {
    if (!this.#terminal.isInteractive) return;
    const text = `${step}: ${entries}${ofEntries === undefined ? '' : ` of ${ofEntries}`} entries`;
    this.#terminal.err(`\r${text}${' '.repeat(Math.max(0, this.#width - text.length))}`);
    this.#width = text.length;
  }

  clear(): void {
    if (this.#width > 0) this.#terminal.err(`\r${' '.repeat(this.#width)}\r`);
    this.#width = 0;
  }
}
