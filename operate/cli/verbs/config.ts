/** `archipelago config check | show`: node files, before anything is started from them. Needs no running installation. */
import { type Problem, problemText } from '#common/config/node-file.ts';
import { toYaml } from '#common/config/yaml-source.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { loadServicesFile, type ServiceConfig } from '../../config/service-schemas.ts';
import type { VerbResult } from '../output.ts';
import { exitCodes, type Terminal } from '../terminal.ts';

/** Every mistake of one or several files. */
export async function configCheck(terminal: Terminal, paths: readonly string[]): Promise<VerbResult> {
  const checked = [];
  for (const path of paths) checked.push(await load(terminal, path));
  const problems = checked.flatMap((each) => each.problems);
  const files = checked.map(({ path, config, problems: found }) => ({
    file: path,
    ok: found.length === 0,
    services: config?.services.map((service) => `${service.role} ${service.name}`) ?? [],
    problems: found,
  }));
  return {
    document: files,
    rows: files,
    names: files.filter((file) => !file.ok).map((file) => file.file),
    render: (paint) =>
      files
        .map((file) =>
          file.ok
            ? `${paint.ok(file.file)}  ${file.services.join(', ')}\n`
            : `${file.problems.map(problemText).join('\n')}\n${paint.bad(`${file.file}: ${file.problems.length} to put right`)}\n`,
        )
        .join(''),
    exitCode: problems.length === 0 ? exitCodes.ok : exitCodes.usage,
  };
}

/** The file as it takes effect: defaults filled in, paths absolute. It holds no secrets, only where they are. */
export async function configShow(terminal: Terminal, path: string): Promise<VerbResult> {
  const { config, problems } = await load(terminal, path);
  if (config === undefined) return configCheck(terminal, [path]);
  return {
    document: config,
    rows: config.services,
    names: config.services.map((service) => service.name),
    render: () => toYaml(config) + (config.services.some(({ role }) => role === 'frontend') ? subsetNote : ''),
    exitCode: problems.length === 0 ? exitCodes.ok : exitCodes.usage,
  };
}

const subsetNote =
  '# Limits that stand in no frontend above come from its subset’s entry in the directory, or are the defaults: archipelago config show\n';

interface Loaded {
  readonly path: string;
  readonly config: { readonly services: readonly ServiceConfig[] } | undefined;
  readonly problems: readonly Problem[];
}

async function load(terminal: Terminal, path: string): Promise<Loaded> {
  let text: string;
  try {
    text = await terminal.readFile(path);
  } catch (error) {
    throw new PlatformError('CONFIG_UNREADABLE', `${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
  const loaded = loadServicesFile(path, text);
  return 'config' in loaded ? { path, config: loaded.config, problems: [] } : { path, config: undefined, problems: loaded.problems };
}
