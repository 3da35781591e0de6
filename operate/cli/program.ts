/**
 * The `archipelago` command: verbs, options and help. Each verb's code is loaded when it is called, so that help and completion are quick.
 * The CLI speaks to the admin API only; `config` reads files and speaks to nobody.
 */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { asPlatformError } from '#common/errors/platform-error.ts';
import { productVersion } from '#common/version.ts';
import type { AskApi, AskStream, ConnectOptions } from './connect.ts';
import { directoryCommands, directoryOptions } from './directory-commands.ts';
import { addFrontendCommands } from './frontend-commands.ts';
import { type OutputFormat, outputFormats, type VerbResult } from './output.ts';
import { exitCodes, type Terminal } from './terminal.ts';
import type { ImportFormat } from './verbs/archive.ts';
import type { ReplicaAction } from './verbs/replica.ts';
import type { ComparisonRequest } from './verbs/replica-comparison.ts';

type GlobalOptions = ConnectOptions & { readonly output: OutputFormat };

/** Runs one command line; resolves with the exit code. Prints what there is to print. */
export async function runCli(args: readonly string[], terminal: Terminal): Promise<number> {
  let exitCode: number = exitCodes.ok;
  const program = buildProgram(terminal, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCode;
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    const error = asPlatformError(thrown);
    const { exitCodeOf } = await import('./connect.ts');
    const hint = typeof error.fields.hint === 'string' ? `\n  → ${error.fields.hint}` : '';
    terminal.err(`archipelago: ${error.message} [${error.code}]${hint}\n`);
    return exitCodeOf(error);
  }
}

/** All verbs, for help and for the reference page. `finish` is told the exit code of the verb that ran. */
export function buildProgram(terminal: Terminal, finish: (exitCode: number) => void): Command {
  const program = new Command('archipelago');
  program
    .description('A cluster of clusters for mail: frontends, backend clusters, directory and its replicas.')
    .addOption(new Option('-o, --output <format>', 'form of the output').choices(outputFormats).default('table'))
    .addOption(new Option('--json', 'the same as -o json').implies({ output: 'json' }))
    .option('--url <url>', 'admin API (env ARCHIPELAGO_URL)')
    .option('--token-file <file>', 'file with its token (env ARCHIPELAGO_TOKEN_FILE)')
    .option('--ca-file <file>', 'PEM file: CA of its certificate (env ARCHIPELAGO_CA_FILE)')
    .option('--context <name>', 'a running installation of this machine, by name')
    .option('--timeout <seconds>', 'time to wait for an answer', wholeNumber)
    .version(productVersion, '-V, --version')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ writeOut: (text) => terminal.out(text), writeErr: (text) => terminal.err(text) })
    .showSuggestionAfterError(true)
    .exitOverride()
    .addHelpText('after', exitCodeHelp);

  const options = (): GlobalOptions => program.opts<GlobalOptions>();
  const show = async (result: VerbResult): Promise<void> => {
    const { emit } = await import('./output.ts');
    await emit(terminal, options().output, result);
    finish(result.exitCode);
  };
  const api = async (): Promise<AskApi> => (await import('./connect.ts')).connect(terminal, options());

  addStarters(program, show, api);
  program
    .command('status')
    .description('the installation at a glance, and what is wrong with it')
    .addHelpText('after', examples('archipelago status', 'archipelago status -o wide', 'archipelago status -o json | jq .findings'))
    .action(async () => show(await (await import('./verbs/status.ts')).status(await api())));
  program
    .command('topology')
    .description('who serves whom: subsets, directory, clusters')
    .addHelpText('after', examples('archipelago topology', 'archipelago topology -o wide', 'archipelago topology -o name'))
    .action(async () => show(await (await import('./verbs/topology.ts')).topology(await api())));
  program
    .command('user')
    .description('one user')
    .command('why')
    .argument('<name>', 'account name or any of its addresses')
    .description('where a user is, why, and what to do about it')
    .addHelpText(
      'after',
      examples(
        'archipelago user why alice@isp.example',
        'archipelago user why alice@isp.example -o wide',
        'archipelago user why alice@isp.example -o json',
      ),
    )
    .action(async (name: string) => show(await (await import('./verbs/user-why.ts')).userWhy(await api(), name)));
  addFrontendCommands(program, { terminal, show, api, examples });
  const stream = async (): Promise<AskStream> => (await import('./connect.ts')).connectStream(terminal, options());
  addReplica(program, show, api, async (name, action, body) => {
    const { compareReplica } = await import('./verbs/replica-comparison.ts');
    finish(await compareReplica(terminal, await stream(), { name, action, body, output: options().output }));
  });
  addAccount(program, terminal, show, api, stream);
  addBackend(program, terminal, show, api);
  addStore(program, terminal, show, api);
  addConfig(program, terminal, show, api);
  program
    .command('sessions')
    .description('live sessions of all frontends')
    .option('--account <name>', 'of this account')
    .option('--protocol <protocol>', 'imap, pop3 or submission')
    .option('--cluster <name>', 'served by this cluster')
    .option('--member <name>', 'served by this member')
    .option('--frontend <name>', 'through this frontend')
    .option('--limit <count>', 'at most so many', wholeNumber)
    .addHelpText(
      'after',
      examples('archipelago sessions', 'archipelago sessions --account alice@isp.example', 'archipelago sessions -o jsonl --limit 5000'),
    )
    .action(async (given: object) => show(await (await import('./verbs/sessions.ts')).sessions(terminal, await api(), given)));
  program
    .command('version')
    .description('version of this command')
    .action(async () => {
      const document = { version: productVersion, node: process.versions.node };
      await show({
        document,
        names: [productVersion],
        render: () => `archipelago ${productVersion} (Node ${process.versions.node})\n`,
        exitCode: exitCodes.ok,
      });
    });
  return program;
}

type Show = (result: VerbResult) => Promise<void>;

/** Listed here for help; bin/archipelago.mjs hands them to deploy/ before this program is asked, but for `demo kill`. */
function addStarters(program: Command, show: Show, api: () => Promise<AskApi>): void {
  const startedElsewhere = (): never => {
    throw new InvalidArgumentError('start it by the archipelago command itself');
  };
  program
    .command('demo')
    .description('run a whole small federation here, until Ctrl-C')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(startedElsewhere)
    .command('kill')
    .argument('<member>', 'name of a cluster member')
    .description('end a member of the running demo as kill -9 would')
    .addHelpText('after', examples('archipelago demo kill back1.east.isp.example'))
    .action(async (member: string) => show(await (await import('./verbs/demo-kill.ts')).demoKill(await api(), member)));
  const directory = program
    .command('directory')
    .description('tools of one directory server, on its files or while it runs')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(startedElsewhere);
  for (const { flags, description } of directoryOptions) directory.option(flags, description);
  const acl = directory.command('acl').description('the access rules of a running server');
  for (const { name, args, description, examples: lines } of directoryCommands) {
    const words = name.split(' ');
    const verb = (words.length > 1 ? acl : directory).command(words.at(-1) as string).description(description);
    for (const one of args.split(' ').filter((word) => word !== '')) {
      verb.argument(one.startsWith('[') ? `[${one.slice(1, -1).toLowerCase()}]` : `<${one.toLowerCase()}>`);
    }
    verb.addHelpText('after', examples(...lines)).action(startedElsewhere);
  }
  directory
    .command('promote')
    .argument('<replica>', 'name of the replica')
    .option('--force', 'the master is lost: do not wait for it; what it answered and did not send is lost')
    .option('--within <seconds>', 'time for the replica to catch up', wholeNumber, 30)
    .description('make a replica the master; all others follow it')
    .addHelpText(
      'after',
      examples('archipelago directory promote ldap-eu.isp.example', 'archipelago directory promote ldap-eu.isp.example --force'),
    )
    .action(async (name: string, given: { force?: boolean; within: number }) => {
      const { replicaAction } = await import('./verbs/replica.ts');
      await show(await replicaAction(await api(), name, 'promote', { force: given.force === true, withinMs: given.within * 1000 }));
    });
  program
    .command('up')
    .description('run the services of a node file: up --config FILE')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(startedElsewhere);
}

type Compare = (name: string, action: ComparisonRequest['action'], body: ComparisonRequest['body']) => Promise<void>;

function addReplica(program: Command, show: Show, api: () => Promise<AskApi>, compare: Compare): void {
  const replica = program.command('replica').description('directory replicas');
  replica
    .command('status')
    .description('how far behind each replica is, in changes and in time')
    .addHelpText(
      'after',
      examples('archipelago replica status', 'archipelago replica status -o wide', 'archipelago replica status -o jsonl'),
    )
    .action(async () => show(await (await import('./verbs/replica.ts')).replicaStatus(await api())));
  const act = async (name: string, action: ReplicaAction, body?: Readonly<Record<string, unknown>>): Promise<void> =>
    show(await (await import('./verbs/replica.ts')).replicaAction(await api(), name, action, body));
  const verb = (action: ReplicaAction | ComparisonRequest['action'], description: string, ...lines: readonly string[]): Command =>
    replica
      .command(action)
      .argument('<replica>', 'name of the replica')
      .description(description)
      .addHelpText('after', examples(...lines));
  verb('verify', 'compare a replica with the master now', 'archipelago replica verify ldap-eu.isp.example').action((name: string) =>
    compare(name, 'verify', {}),
  );
  verb(
    'diff',
    'list every entry that is not the master’s',
    'archipelago replica diff ldap-eu.isp.example',
    'archipelago replica diff ldap-eu.isp.example -o jsonl | jq -r .dn',
    'archipelago replica diff ldap-eu.isp.example --json',
  ).action((name: string) => compare(name, 'diff', {}));
  verb(
    'repair',
    'make a replica equal to the master, entry by entry',
    'archipelago replica repair ldap-eu.isp.example --dry-run',
    'archipelago replica repair ldap-eu.isp.example',
  )
    .option('--dry-run', 'only list what would be done')
    .option('--allow-deletes', 'delete as much as it takes; without, no more than a refresh may')
    .action((name: string, given: { dryRun?: boolean; allowDeletes?: boolean }) =>
      compare(name, 'repair', { dryRun: given.dryRun === true, allowDeletes: given.allowDeletes === true }),
    );
  verb(
    'wait',
    'wait until a replica has a change, or all that the master has now',
    'archipelago replica wait ldap-eu.isp.example',
    'archipelago replica wait ldap-eu.isp.example --csn 20261122120000.000001Z#000000#001#000000 --within 5',
  )
    .option('--change <csn>', 'entryCSN of the change; default: the latest of the master')
    .option('--csn <csn>', 'the same')
    .option('--within <seconds>', 'give up after so long', wholeNumber, 30)
    .action((name: string, given: { change?: string; csn?: string; within: number }) =>
      act(name, 'wait', { csn: given.change ?? given.csn, withinMs: given.within * 1000 }),
    );
  verb(
    'allow-deletes',
    'let a stopped replica delete what its refresh asks for; check the master first',
    'archipelago replica allow-deletes ldap-eu.isp.example',
  ).action((name: string) => act(name, 'allow-deletes'));
  verb(
    'resume',
    'let a stopped replica follow a master that went back to an older state',
    'archipelago replica resume ldap-eu.isp.example',
  ).action((name: string) => act(name, 'resume'));
}

function addAccount(program: Command, terminal: Terminal, show: Show, api: () => Promise<AskApi>, stream: () => Promise<AskStream>): void {
  const account = program.command('account').description('create, rename, remove and show accounts');
  const verbs = () => import('./verbs/account.ts');
  const withPassword = (command: Command): Command =>
    command
      .option('--password-file <file>', 'file whose first line is the password; - for standard input')
      .option('--generate-password', 'make a password and print it once');
  withPassword(account.command('create').argument('<name>', 'local@domain').description('create an account'))
    .option('--cluster <name>', 'cluster that shall host it; default: the one with the fewest accounts')
    .option('--display-name <text>', 'name of the person')
    .option('--quota-bytes <bytes>', 'quota', wholeNumber)
    .addHelpText(
      'after',
      examples(
        'archipelago account create bob@isp.example --generate-password',
        'archipelago account create bob@isp.example --cluster west.isp.example --password-file pw.txt',
      ),
    )
    .action(async (name: string, given: object) => show(await (await verbs()).accountCreate(terminal, await api(), name, given)));
  account
    .command('rename')
    .argument('<name>', 'account as it is called now')
    .argument('<new-name>', 'local@domain')
    .description('rename an account; its mail and sessions stay')
    .addHelpText('after', examples('archipelago account rename bob@isp.example robert@isp.example'))
    .action(async (from: string, to: string) => show(await (await verbs()).accountRename(await api(), from, to)));
  account
    .command('remove')
    .argument('<name>', 'account')
    .option('--yes', 'do not ask')
    .description('remove an account; its storage is kept for the configured grace')
    .addHelpText('after', examples('archipelago account remove bob@isp.example --yes'))
    .action(async (name: string, given: { yes?: boolean }) =>
      show(await (await verbs()).accountRemove(terminal, await api(), name, given.yes === true)),
    );
  account
    .command('export')
    .argument('<name>', 'account name or UUID')
    .requiredOption('--to <file>', 'new file; - for standard output')
    .description('write everything of an account into an archive (docs/reference/archive.md)')
    .addHelpText(
      'after',
      examples(
        'archipelago account export bob@isp.example --to bob.tar',
        'archipelago account export bob@isp.example --to - | zstd > bob.tar.zst',
      ),
    )
    .action(async (name: string, given: { to: string }) => {
      const result = await (await import('./verbs/archive.ts')).accountExport(await stream(), name, given.to);
      if (given.to !== '-') await show(result);
    });
  account
    .command('import')
    .argument('<name>', 'account, which must exist')
    .argument('<path>', 'archive or mbox file (- for standard input), or Maildir')
    .addOption(new Option('--format <format>', 'what the path is').choices(['archive', 'mbox', 'maildir']).default('archive'))
    .option('--mailbox <name>', 'mbox: mailbox for all messages; maildir: for those of its root; default: INBOX')
    .description('bring mail into an account; what is there already is not stored again')
    .addHelpText(
      'after',
      examples(
        'archipelago account import bob@isp.example bob.tar',
        'archipelago account import bob@isp.example /var/mail/bob --format mbox',
        'archipelago account import bob@isp.example ~bob/Maildir --format maildir',
      ),
    )
    .action(async (name: string, path: string, given: { format: ImportFormat; mailbox?: string }) =>
      show(await (await import('./verbs/archive.ts')).accountImport(terminal, await stream(), name, path, given)),
    );
  withPassword(account.command('restore').argument('<name>', 'name it had when it was removed, or its UUID'))
    .description('bring a removed account back while its storage is kept')
    .option('--cluster <name>', 'cluster that hosted it; default: all are asked')
    .option('--as <name>', 'give it another name')
    .addHelpText(
      'after',
      examples(
        'archipelago account restore bob@isp.example --generate-password',
        'archipelago account restore bob@isp.example --as bob.old@isp.example --password-file pw.txt',
      ),
    )
    .action(async (name: string, given: object) => show(await (await verbs()).accountRestore(terminal, await api(), name, given)));
  withPassword(account.command('passwd').argument('<name>', 'account').description('set a password; read from standard input by default'))
    .addHelpText(
      'after',
      examples('archipelago account passwd bob@isp.example < pw.txt', 'archipelago account passwd bob@isp.example --generate-password'),
    )
    .action(async (name: string, given: object) => show(await (await verbs()).accountPasswd(terminal, await api(), name, given)));
  account
    .command('show')
    .argument('<name>', 'account name or any of its addresses')
    .description('an account as the directory holds it')
    .addHelpText('after', examples('archipelago account show bob@isp.example', 'archipelago account show bob@isp.example -o yaml'))
    .action(async (name: string) => show(await (await verbs()).accountShow(await api(), name)));
}

function addBackend(program: Command, terminal: Terminal, show: Show, api: () => Promise<AskApi>): void {
  const backend = program.command('backend').description('members of a cluster: drain, placement, settings');
  const verbs = () => import('./verbs/backend.ts');
  const verb = (name: string, argument: string, what: string, description: string, ...lines: readonly string[]): Command =>
    backend
      .command(name)
      .argument(argument, what)
      .description(description)
      .addHelpText('after', examples(...lines));
  const member = 'full name of a member';
  verb(
    'drain',
    '<member>',
    member,
    'close what a member has open, and let it take no more',
    'archipelago backend drain back1.west.isp.example --deadline 60s',
  )
    .option('--deadline <duration>', 'time over which sessions are moved', '60s')
    .option('--abort', 'call a drain off: the member takes accounts again')
    .option('--no-wait', 'do not wait for the end')
    .action(async (name: string, given: { deadline: string; abort?: boolean; wait: boolean }) =>
      show(await (await verbs()).drain(terminal, await api(), name, given)),
    );
  verb(
    'cordon',
    '<member>',
    member,
    'keep what a member has open, and let it take no more',
    'archipelago backend cordon back1.west.isp.example',
  ).action(async (name: string) => show(await (await verbs()).cordon(await api(), name, true)));
  verb('uncordon', '<member>', member, 'let a member take accounts again', 'archipelago backend uncordon back1.west.isp.example').action(
    async (name: string) => show(await (await verbs()).cordon(await api(), name, false)),
  );
  verb(
    'weight',
    '<member>',
    member,
    'share of sessions and accounts; 100 by default',
    'archipelago backend weight back1.west.isp.example 200',
  )
    .argument('<weight>', '1 to 1000')
    .action(async (name: string, value: string) => show(await (await verbs()).weight(await api(), name, value)));
  verb(
    'remove',
    '<member>',
    'full name of a dead member',
    'forget a member that will not come back',
    'archipelago backend remove back3.west.isp.example',
  ).action(async (name: string) => show(await (await verbs()).remove(await api(), name)));
  verb(
    'rebalance',
    '<cluster>',
    'name of the cluster',
    'let members above their share close some accounts',
    'archipelago backend rebalance west.isp.example',
  ).action(async (name: string) => show(await (await verbs()).rebalance(await api(), name)));
  verb(
    'hand-over',
    '<cluster>',
    'name of the cluster',
    'make another member Controller',
    'archipelago backend hand-over west.isp.example --to back2.west.isp.example',
  )
    .option('--to <member>', 'default: the one with the fewest accounts open')
    .action(async (name: string, given: { to?: string }) => show(await (await verbs()).handOver(await api(), name, given.to)));
  const settings = backend.command('settings').description('settings of a whole cluster');
  settings
    .command('get')
    .argument('<cluster>', 'name of the cluster')
    .argument('[name]', 'one setting')
    .description('what is set')
    .addHelpText('after', examples('archipelago backend settings get west.isp.example'))
    .action(async (cluster: string, name: string | undefined) => show(await (await verbs()).settingsGet(await api(), cluster, name)));
  settings
    .command('set')
    .argument('<cluster>', 'name of the cluster')
    .argument('<name=value...>', 'name= takes a setting away')
    .description('change settings; all members follow within a heartbeat')
    .addHelpText('after', examples('archipelago backend settings set west.isp.example accounts.default-quota-bytes=5000000000'))
    .action(async (cluster: string, changes: string[]) => show(await (await verbs()).settingsSet(await api(), cluster, changes)));
}

function addStore(program: Command, terminal: Terminal, show: Show, api: () => Promise<AskApi>): void {
  const store = program.command('store').description('stored accounts of a cluster: damage, checks, repair');
  const verbs = () => import('./verbs/store.ts');
  store.addHelpText(
    'after',
    '\nOn a directory or bucket itself: archipelago store COMMAND --path DIR | --config FILE; --help with one of them tells more.\n',
  );
  store
    .command('stat')
    .argument('[cluster]', 'default: all')
    .description('damaged accounts, and how far the check of all accounts is')
    .addHelpText('after', examples('archipelago store stat', 'archipelago store stat west.isp.example -o json'))
    .action(async (cluster: string | undefined) => show(await (await verbs()).storeStat(await api(), cluster)));
  store
    .command('check')
    .argument('[account]', 'name or UUID')
    .option('--cluster <name>', 'all accounts of this cluster')
    .option('--no-wait', 'do not wait for the end')
    .description('read everything of an account, or of all accounts, and verify it')
    .addHelpText('after', examples('archipelago store check bob@isp.example', 'archipelago store check --cluster west.isp.example'))
    .action(async (account: string | undefined, given: { cluster?: string; wait: boolean }) => {
      if ((account === undefined) === (given.cluster === undefined)) throw new InvalidArgumentError('name an account, or --cluster NAME');
      const { storeCheckAccount, storeCheckAll } = await verbs();
      await show(
        account === undefined
          ? await storeCheckAll(terminal, await api(), given.cluster as string, given.wait)
          : await storeCheckAccount(await api(), account),
      );
    });
  store
    .command('repair')
    .argument('<account>', 'name or UUID')
    .option('--dry-run', 'only say what would be done')
    .option('--discard-lost', 'give up what cannot be brought back')
    .description('make a damaged account whole again; exit code 4 when something would be lost, also with --dry-run')
    .addHelpText(
      'after',
      examples('archipelago store repair bob@isp.example --dry-run', 'archipelago store repair bob@isp.example --discard-lost'),
    )
    .action(async (account: string, given: object) => show(await (await verbs()).storeRepair(await api(), account, given)));
}

function addConfig(program: Command, terminal: Terminal, show: Show, api: () => Promise<AskApi>): void {
  const config = program.command('config').description('node files');
  config
    .command('check')
    .argument('<file...>', 'node files')
    .description('find every mistake, with line and column')
    .addHelpText('after', examples('archipelago config check front1.yaml', 'archipelago config check deploy/examples/*.yaml'))
    .action(async (files: string[]) => show(await (await import('./verbs/config.ts')).configCheck(terminal, files)));
  config
    .command('show')
    .argument('[file]', 'node file; without it what running frontends run with')
    .option('--frontend <name>', 'without a file: this frontend only')
    .description('the file as it takes effect, defaults filled in; or the settings of running frontends, and where each value comes from')
    .addHelpText('after', examples('archipelago config show front1.yaml', 'archipelago config show', 'archipelago config show -o json'))
    .action(async (file: string | undefined, { frontend }: { frontend?: string }) => {
      if (file !== undefined) return show(await (await import('./verbs/config.ts')).configShow(terminal, file));
      return show(await (await import('./verbs/frontend.ts')).settingsShow(await api(), frontend));
    });
}

const exitCodeHelp = `
Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 degraded, 5 conflict, 6 denied, 7 timeout or partial answer.
`;

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('expected a whole number');
  return Number(text);
}
