import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type NodeFile, problemText } from '#common/config/node-file.ts';
import { loadServicesFile, type ServiceConfig } from '#operate/config/service-schemas.ts';

const directory = join(import.meta.dirname, '..', '..', '..', 'deploy', 'examples');
const names = readdirSync(directory).filter((name) => name.endsWith('.yaml'));

function load(name: string): NodeFile<ServiceConfig> {
  const path = join(directory, name);
  const loaded = loadServicesFile(path, readFileSync(path, 'utf8'));
  if ('problems' in loaded) throw new Error(loaded.problems.map(problemText).join('\n'));
  return loaded.config;
}

describe('the sample node files', () => {
  it.each(names)('%s is accepted', (name) => {
    expect(load(name).services).toHaveLength(1);
  });

  it('form one federation: two subsets, two clusters, master, two replicas, replication', () => {
    const services = names.flatMap((name) => load(name).services);
    const count = (role: string): number => services.filter((service) => service.role === role).length;
    expect([count('frontend'), count('backend-cluster'), count('directory'), count('replication')]).toEqual([4, 4, 3, 1]);
    expect(new Set(services.map((service) => service.name)).size).toBe(12);
    expect(new Set(services.flatMap((service) => (service.role === 'frontend' ? [service.subset] : [])))).toEqual(new Set(['eu', 'us']));
  });

  it('take no port twice, and stay on loopback from 21000 up', () => {
    const ports = names.flatMap((name) => {
      const { admin, services } = load(name);
      const own = services.flatMap((service) => {
        if (service.role === 'replication') return [];
        return service.role === 'backend-cluster' ? [service.listen] : service.listeners;
      });
      return [...(admin === undefined ? [] : [admin]), ...own];
    });
    expect(new Set(ports.map(({ port }) => port)).size).toBe(ports.length);
    for (const { address, port } of ports) expect([address, port >= 21_000]).toEqual(['127.0.0.1', true]);
  });

  it('have one console whose peers are all the others', () => {
    const files = names.map(load);
    const consoles = files.filter((file) => (file.admin?.peers.length ?? 0) > 0);
    expect(consoles).toHaveLength(1);
    const listed = consoles[0]?.admin?.peers.map((peer) => Number(new URL(peer.url).port)).sort();
    const others = files.filter((file) => !consoles.includes(file)).map((file) => file.admin?.port);
    expect(listed).toEqual(others.sort());
  });

  it('ask directory servers that another of them runs', () => {
    const services = names.flatMap((name) => load(name).services);
    const served = services.flatMap((service) => (service.role === 'directory' ? service.listeners.map(({ port }) => port) : []));
    const asked = services.flatMap((service) => {
      if (service.role === 'directory') return service.master === undefined ? [] : [service.master];
      if (service.role === 'replication') return [service.master.url, ...service.replicas.map((replica) => replica.url)];
      return [service.directory.master, ...service.directory.servers];
    });
    expect(asked.length).toBeGreaterThan(0);
    for (const url of asked) expect(served).toContain(Number(new URL(url).port));
  });

  it('let the members of a cluster meet at one socket and share one storage, and no two clusters', () => {
    const members = names.flatMap((name) => load(name).services).filter((service) => service.role === 'backend-cluster');
    const meeting = new Set(members.map((member) => `${member.name.slice(6)} ${member.coordinator.path} ${member.storage.path}`));
    expect(meeting.size).toBe(2);
    expect(new Set(members.map((member) => member.coordinator.path)).size).toBe(2);
  });
});
