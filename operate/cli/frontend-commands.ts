/** The verbs `frontend`, `subset`, `guard` and `kick`, for program.ts. */
import { type Command, InvalidArgumentError } from 'commander';
import type { AskApi } from './connect.ts';
import type { VerbResult } from './output.ts';
import type { Terminal } from './terminal.ts';
import type { DrainTerms, RestartTerms, Target } from './verbs/frontend.ts';

/** What the verbs need of the program. */
export interface FrontendCommandsOptions {
  readonly terminal: Terminal;
  show(result: VerbResult): Promise<void>;
  api(): Promise<AskApi>;
  examples(...lines: readonly string[]): string;
}

/** Adds them. */
export function addFrontendCommands(program: Command, options: FrontendCommandsOptions): void {
  const frontend = addWithdrawal(
    program,
    options,
    'frontend',
    'one frontend server',
    (name) => ({ frontend: name }),
    'front1.eu.isp.example',
  );
  addRestart(frontend, options);
  addWithdrawal(program, options, 'subset', 'all frontends of a subset', (name) => ({ subset: name }), 'eu');
  addGuard(program, options);
  program
    .command('kick')
    .argument('<what>', 'account, address or range, or the id of a session')
    .description('end live sessions on all frontends; their clients may come back at once')
    .addHelpText('after', options.examples('archipelago kick alice@isp.example', 'archipelago kick 192.0.2.0/24'))
    .action(async (what: string) => options.show(await (await import('./verbs/frontend.ts')).kick(await options.api(), what)));
}

function addWithdrawal(
  program: Command,
  { terminal, show, api, examples }: FrontendCommandsOptions,
  noun: string,
  what: string,
  targetOf: (name: string) => Target,
  example: string,
): Command {
  const group = program.command(noun).description(`${what}: out of service and back in`);
  const verbs = () => import('./verbs/frontend.ts');
  group
    .command('cordon')
    .argument('<name>', `name of the ${noun}`)
    .description('have the load balancer send nobody new; sessions go on')
    .addHelpText('after', examples(`archipelago ${noun} cordon ${example}`))
    .action(async (name: string) => show(await (await verbs()).withdraw(await api(), targetOf(name), 'cordon')));
  group
    .command('drain')
    .argument('<name>', `name of the ${noun}`)
    .description('take no more connections and end sessions, spread over the time there is')
    .option('--deadline <seconds>', 'drop what is left after so long', positive, 300)
    .option('--pace <sessions>', 'sessions ended a second on each frontend; default: evenly over the time', positive)
    .option('--force', 'also when no other frontend of the subset serves')
    .option('--wait', 'stay until it is done, and say how far it is')
    .addHelpText(
      'after',
      examples(`archipelago ${noun} drain ${example} --deadline 600 --wait`, `archipelago ${noun} drain ${example} --pace 50`),
    )
    .action(async (name: string, given: DrainTerms) => show(await (await verbs()).drain(terminal, await api(), targetOf(name), given)));
  group
    .command('resume')
    .argument('<name>', `name of the ${noun}`)
    .description('back into service, also out of a drain under way')
    .addHelpText('after', examples(`archipelago ${noun} resume ${example}`))
    .action(async (name: string) => show(await (await verbs()).withdraw(await api(), targetOf(name), 'resume')));
  group
    .command('weight')
    .argument('<name>', `name of the ${noun}`)
    .argument('<percent>', 'share of new connections that is wanted', percent)
    .description('tell the load balancer how many of its share of new connections to send')
    .addHelpText('after', examples(`archipelago ${noun} weight ${example} 50`))
    .action(async (name: string, weight: number) =>
      show(await (await verbs()).withdraw(await api(), targetOf(name), 'weight', { weight })),
    );
  return group;
}

function addRestart(group: Command, { show, api, examples }: FrontendCommandsOptions): void {
  group
    .command('restart')
    .argument('<name>', 'name of the frontend')
    .description('go on in a new process, with configuration and program as they are on disk now; no connection is refused or cut')
    .option('--deadline <seconds>', 'time that sessions of the old process have to end by themselves', positive, 3600)
    .option('--within <seconds>', 'time that the new process has to come up; else the old one goes on', positive, 180)
    .addHelpText(
      'after',
      examples('archipelago frontend restart front1.eu.isp.example', 'archipelago frontend restart front1.eu.isp.example --deadline 600'),
    )
    .action(async (name: string, given: RestartTerms) =>
      show(await (await import('./verbs/frontend.ts')).restart(await api(), name, given)),
    );
}

function addGuard(program: Command, { terminal, show, api, examples }: FrontendCommandsOptions): void {
  const guard = program.command('guard').description('failed logins, and addresses that are blocked or allowed');
  const verbs = () => import('./verbs/frontend.ts');
  guard
    .command('ls')
    .description('rules, and failed logins that count now, of all frontends')
    .addHelpText('after', examples('archipelago guard ls', 'archipelago guard ls -o jsonl'))
    .action(async () => show(await (await verbs()).guardShow(terminal, await api())));
  guard
    .command('why')
    .argument('<what>', 'address or account')
    .description('what becomes of logins from an address or to an account, and why')
    .addHelpText('after', examples('archipelago guard why 192.0.2.1', 'archipelago guard why alice@isp.example'))
    .action(async (what: string) => show(await (await verbs()).guardShow(terminal, await api(), what)));
  for (const [verb, description] of [
    ['block', 'hang up on an address or range'],
    ['allow', 'exempt an address or range from limits for each address and from delays'],
  ] as const) {
    guard
      .command(verb)
      .argument('<range>', 'address or range such as 192.0.2.0/24')
      .description(`${description}, on all frontends`)
      .option('--for <minutes>', 'time that it holds; default: a day', positive)
      .option('--reason <text>', 'for those who look later')
      .addHelpText('after', examples(`archipelago guard ${verb} 192.0.2.0/24 --for 60 --reason "ticket 17"`))
      .action(async (range: string, given: { for?: number; reason?: string }) =>
        show(await (await verbs()).guardSet(terminal, await api(), `guard-${verb}`, range, given)),
      );
  }
  guard
    .command('forget')
    .argument('<what>', 'address, range or account')
    .description('remove a rule, and forget failed logins')
    .addHelpText('after', examples('archipelago guard forget 192.0.2.0/24', 'archipelago guard forget alice@isp.example'))
    .action(async (what: string) => show(await (await verbs()).guardSet(terminal, await api(), 'guard-forget', what, {})));
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new InvalidArgumentError('expected a number above 0');
  return value;
}

function percent(text: string): number {
  if (!/^(?:100|\d{1,2})$/.test(text)) throw new InvalidArgumentError('expected a whole number from 0 to 100');
  return Number(text);
}
