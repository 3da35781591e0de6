/**
 * The image that every host of a run in containers is made of: Debian with Redis, and the product as an installation would have it, with the
 * Node and the modules it runs on. Nothing is pulled from anywhere. Its tag is a hash of what went in, so an unchanged product is built once.
 */
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ContainerRuntimeClient, GenericContainer, ImageName } from 'testcontainers';

const project = fileURLToPath(new URL('../../..', import.meta.url));
const dockerfile = fileURLToPath(new URL('Dockerfile', import.meta.url));
const base = 'archipelago-chaos-base';
const repository = 'archipelago-chaos';
const product = [
  'bin',
  'common',
  'protocol',
  'frontend',
  'backend-cluster',
  'directory',
  'replication',
  'operate',
  'deploy',
  'package.json',
];

/** The name of the image, which exists then. */
export async function productImage(client: ContainerRuntimeClient, say: (line: string) => void): Promise<string> {
  if (!(await client.image.exists(ImageName.fromString(base)))) {
    throw new Error(`the Docker daemon has no image ${base}, of which the hosts are made: "npm run chaos:docker -- up" makes it, as root`);
  }
  const modules = await productionModules();
  const name = `${repository}:${await hashOf(client, modules)}`;
  if (await client.image.exists(ImageName.fromString(name))) return name;
  say(`building the image ${name}`);
  const context = await mkdtemp(join(tmpdir(), 'archipelago-image-'));
  try {
    for (const part of product) await cp(join(project, part), join(context, 'product', part), { recursive: true, verbatimSymlinks: true });
    for (const path of modules) await copyModule(path, join(context, 'modules'));
    await cp(dockerfile, join(context, 'Dockerfile'));
    await GenericContainer.fromDockerfile(context).withBuildArgs({ ARCH: process.arch }).build(name, { deleteOnExit: false });
  } finally {
    await rm(context, { recursive: true, force: true });
  }
  return name;
}

/** Folders below node_modules that the product needs at run time, the Node among them. */
async function productionModules(): Promise<string[]> {
  const lock = JSON.parse(await readFile(join(project, 'package-lock.json'), 'utf8')) as { packages: Record<string, { dev?: boolean }> };
  const here = new Set((await readdir(join(project, 'node_modules'))).map((name) => `node_modules/${name}`));
  // A module within a module comes along with it; an optional one is not there on every machine.
  return Object.entries(lock.packages)
    .filter(([path, { dev }]) => dev !== true && /^node_modules\/(@[^/]+\/)?[^/]+$/.test(path))
    .map(([path]) => path)
    .filter((path) => here.has(path.split('/', 2).join('/')));
}

async function copyModule(path: string, to: string): Promise<void> {
  const target = join(to, path.slice('node_modules/'.length));
  await mkdir(target, { recursive: true });
  // Node's headers and manual are larger than all the rest.
  const isUseless = (file: string): boolean => /\/node-linux-[^/]+\/(include|share)$/.test(file);
  await cp(join(project, path), target, { recursive: true, verbatimSymlinks: true, filter: (file) => !isUseless(file) });
}

async function hashOf(client: ContainerRuntimeClient, modules: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  const { Id } = await client.image.inspect(ImageName.fromString(base));
  hash.update(JSON.stringify([Id, process.arch, modules]));
  for (const file of ['package-lock.json', 'test/chaos/containers/Dockerfile']) hash.update(await readFile(join(project, file)));
  for (const part of product.filter((each) => !each.endsWith('.json'))) {
    const entries = await readdir(join(project, part), { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    for (const file of files.sort()) hash.update(`${file.slice(project.length)}\0`).update(await readFile(file));
  }
  hash.update(await readFile(join(project, 'package.json')));
  return hash.digest('hex').slice(0, 12);
}
