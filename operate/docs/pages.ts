/**
 * The reference pages, made from what the code itself declares: error codes from the catalogue, options from the schemas, verbs from the
 * command line. A test compares the pages with what this file makes.
 */
import type { TSchema } from 'typebox';
import { AdminConfig, LogConfig, NodeFile } from '#common/config/node-file.ts';
import { errorCatalogue } from '#common/errors/catalogue.ts';
import { httpStatuses, imapReplies, ldapResultCodes, pop3Replies, smtpReplies } from '#common/errors/wire.ts';
import { buildProgram } from '../cli/program.ts';
import { exitCodes, type Terminal } from '../cli/terminal.ts';
import { serviceSchemas } from '../config/service-schemas.ts';

const made = 'This page is made from the code by `node bin/run.mjs operate/docs/generate.ts`.';

/** Every page: file name below docs/reference, and its text. */
export function referencePages(): Readonly<Record<string, string>> {
  return { 'errors.md': errorsPage(), 'config.md': configPage(), 'cli.md': cliPage() };
}

function errorsPage(): string {
  const codes = Object.entries(errorCatalogue).map(
    ([code, { kind, retry, meaning }]) => `| \`${code}\` | ${kind} | ${retry} | ${cell(meaning)} |`,
  );
  const kinds = (Object.keys(httpStatuses) as (keyof typeof httpStatuses)[]).map((kind) => {
    const [imap, pop3, smtp] = [imapReplies[kind], pop3Replies[kind], smtpReplies[kind]];
    const pop3Code = pop3.code === undefined ? '' : ` [${pop3.code}]`;
    return `| ${kind} | \`${imap.status} [${imap.code}]\` | \`-ERR${pop3Code}\` | \`${smtp.code} ${smtp.enhanced}\` | ${ldapResultCodes[kind]} | ${httpStatuses[kind]} |`;
  });
  return `# Error codes

${made}

A failure has a code. It stands in the log line (\`errCode\`), in the admin API's problem documents (\`code\`) and in brackets at the end of what
the \`archipelago\` command prints. The kind decides what a mail or directory client is told, the retry whether trying again can help.

| Code | Kind | Retry | What happened, and what to do |
|---|---|---|---|
${codes.join('\n')}

## What a peer is told

A peer gets a short sentence with no names of ours in it; the log has the rest. Before login, \`not-found\` looks like \`auth\`, so that nobody can
list accounts by trying. The admin API answers \`moved\` with 409: there is nothing for its clients to follow.

| Kind | IMAP | POP3 | SMTP | LDAP | HTTP |
|---|---|---|---|---|---|
${kinds.join('\n')}
`;
}

function configPage(): string {
  const roles = Object.entries(serviceSchemas).map(([role, schema]) => `## A service of role \`${role}\`\n\n${optionTable(schema)}`);
  return `# The node file

${made}

A node file is YAML 1.2 and says what one process runs: \`archipelago up --config FILE\`. Samples that form a whole federation are in
\`deploy/examples/\`. \`archipelago config check FILE\` reports every mistake with file, line and column; \`config show FILE\` prints the file as it takes
effect. Unknown keys are mistakes. Relative paths count from the file's own directory. Secrets are named, never written: a file or an environment
variable.

## The file

${optionTable(NodeFile)}

### \`admin\`

${optionTable(AdminConfig)}

### \`log\`

${optionTable(LogConfig)}

${roles.join('\n\n')}
`;
}

/** The parts of a schema that the page shows. */
interface Shown {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly default?: unknown;
  /** What holds where neither the file nor the subset's entry says anything. */
  readonly otherwise?: unknown;
  readonly description?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Shown>>;
  readonly items?: Shown;
}

function optionTable(schema: TSchema): string {
  return `| Option | Value | Default | Meaning |\n|---|---|---|---|\n${optionRows(schema as Shown, '').join('\n')}`;
}

function optionRows(schema: Shown, prefix: string): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, option]) => {
    const path = `${prefix}${name}`;
    const value = option.default ?? option.otherwise;
    const isRequired = schema.required?.includes(name) === true && value === undefined;
    const subset = option.otherwise === undefined ? '' : ' or the subset’s';
    const fallback = value === undefined ? (isRequired ? '**required**' : '') : `\`${JSON.stringify(value)}\`${subset}`;
    const own = `| \`${path}\` | ${valueText(option)} | ${fallback} | ${cell(option.description ?? '')} |`;
    // The tables of admin and log stand by themselves.
    if (prefix === '' && (name === 'admin' || name === 'log')) return [own];
    if (option.properties !== undefined) return [own, ...optionRows(option, `${path}.`)];
    if (option.items?.properties !== undefined) return [own, ...optionRows(option.items, `${path}[].`)];
    return [own];
  });
}

function valueText(option: Shown): string {
  if (option.const !== undefined) return `\`${String(option.const)}\``;
  if (option.enum !== undefined) return option.enum.map((value) => `\`${String(value)}\``).join(', ');
  if (option.type === 'array') return option.items?.properties === undefined ? `list of ${option.items?.type ?? 'values'}` : 'list';
  if (option.type === 'object') return 'group';
  const range = [
    option.minimum === undefined ? '' : `≥ ${option.minimum}`,
    option.maximum === undefined ? '' : `≤ ${option.maximum}`,
  ].filter((part) => part !== '');
  return range.length === 0 ? (option.type ?? '') : `${option.type}, ${range.join(', ')}`;
}

function cliPage(): string {
  let printed = '';
  const terminal = { out: (text: string) => (printed += text), err: (text: string) => (printed += text), env: {} } as unknown as Terminal;
  const program = buildProgram(terminal, () => {});
  type Verb = typeof program;
  const help = (verb: Verb): string => {
    printed = '';
    verb.configureOutput({ getOutHelpWidth: () => 110, getOutHasColors: () => false });
    verb.configureHelp({ showGlobalOptions: false });
    verb.outputHelp();
    return printed.trimEnd();
  };
  const sections: string[] = [];
  const walk = (verb: Verb, path: string): void => {
    sections.push(`## ${path}\n\n\`\`\`text\n${help(verb)}\n\`\`\``);
    for (const child of verb.commands) walk(child as Verb, `${path} ${child.name()}`);
  };
  for (const child of program.commands) walk(child as Verb, child.name());
  const codes = Object.entries(exitCodes).map(([name, code]) => `| ${code} | ${exitMeanings[name as keyof typeof exitCodes]} |`);
  return `# The \`archipelago\` command

${made}

The command speaks to the admin API of any one node, which asks the others. It finds the API by \`--url\`, \`--token-file\` and \`--ca-file\`, by the
environment (\`ARCHIPELAGO_URL\`, \`ARCHIPELAGO_TOKEN_FILE\`, \`ARCHIPELAGO_CA_FILE\`), or by a context file below
\`\${XDG_CONFIG_HOME:-~/.config}/archipelago/contexts/\`, which a running demo writes. Only \`json\`, \`jsonl\` and \`yaml\` output is stable; tables are
for eyes. \`NO_COLOR\` is honoured.

| Exit code | Meaning |
|---|---|
${codes.join('\n')}

\`\`\`text
${help(program)}
\`\`\`

${sections.join('\n\n')}
`;
}

const exitMeanings: Record<keyof typeof exitCodes, string> = {
  ok: 'done',
  failed: 'failed',
  usage: 'the command line or a node file has mistakes',
  notFound: 'there is no such account or object',
  degraded:
    '`status`, `replica status`, `replica verify`, `replica diff`, `replica repair`, `user why`, `store stat`, `store check`: something is not as it should be; `store repair`, also with `--dry-run`: it would lose something',
  conflict: 'it exists already, or changed meanwhile',
  denied: 'wrong token, or not permitted',
  partial: 'no answer in time, or an answer that some node is missing from',
};

function cell(text: string): string {
  return text.replace(/\|/g, '\\|').replace(/\s+/g, ' ');
}
