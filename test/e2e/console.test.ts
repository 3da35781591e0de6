import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#common/clock.ts';
import { nodeFiles } from '#common/files/node-files.ts';
import type { Ports } from '#common/lifecycle.ts';
import { silentLogger } from '#common/log/logger.ts';
import { createMetrics } from '#common/metrics/metrics.ts';
import { systemRandom } from '#common/random.ts';
import { Secret } from '#common/secret.ts';
import { startAdmin } from '#operate/api/admin-server.ts';
import type { AdminService, RunningAdmin } from '#operate/api/options.ts';
import {
  aliceRecord,
  fakeClusterAccounts,
  fakeDirectoryAccess,
  fakeMember,
  fakeReplication,
  fakeServices,
} from '#test/fakes/installation.ts';

/** Pictures for a person to look at: set `CONSOLE_SCREENSHOTS` to a directory. */
const pictures = process.env.CONSOLE_SCREENSHOTS;
const token = 'the-console-password';

let profile: string;
let browser: BrowserContext;
let page: Page;
let admin: RunningAdmin;
let services: AdminService[];
let killed: string[];
/** Whatever the page's console or the policy complained of. */
let complaints: string[];

async function picture(name: string): Promise<void> {
  if (pictures !== undefined) await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

async function startFixture(port = 0): Promise<RunningAdmin> {
  return startAdmin({
    node: 'console.isp.example',
    listen: { address: '127.0.0.1', port },
    token: new Secret(token),
    peers: [],
    services,
    directory: fakeDirectoryAccess([aliceRecord()]),
    accounts: fakeClusterAccounts(),
    demo: {
      killMember: async (name) => {
        killed.push(name);
      },
    },
    ports: {
      clock: systemClock,
      random: systemRandom,
      network: {} as Ports['network'],
      files: nodeFiles,
      log: silentLogger,
      metrics: createMetrics(),
    },
  });
}

async function logIn(): Promise<void> {
  await page.goto(admin.url);
  await page.fill('#password', token);
  await page.click('#login-form button');
  await page.waitForSelector('#app:not([hidden])');
}

beforeAll(async () => {
  profile = await mkdtemp(join(tmpdir(), 'archipelago-console-'));
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: '/usr/bin/chromium',
    headless: true,
    viewport: { width: 1280, height: 900 },
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
});

afterAll(async () => {
  await browser?.close();
  await rm(profile, { recursive: true, force: true });
});

beforeEach(async () => {
  killed = [];
  complaints = [];
  services = fakeServices();
  admin = await startFixture();
  await browser.clearCookies();
  page = await browser.newPage();
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.text().includes('401')) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.setViewportSize({ width: 1280, height: 900 });
  return async () => {
    await page.close();
    await admin[Symbol.asyncDispose]();
  };
});

describe('the console', () => {
  it('asks for the password, refuses a wrong one and shows nothing before', async () => {
    await page.goto(admin.url);
    await page.waitForSelector('#login:not([hidden])');
    expect(await page.isVisible('#app')).toBe(false);
    await page.fill('#password', 'wrong');
    await page.click('#login-form button');
    await expect.poll(() => page.textContent('#login-error')).toBe('That is not the password.');
    await picture('login');
    await page.fill('#password', token);
    await page.click('#login-form button');
    await page.waitForSelector('#app:not([hidden])');
  });

  it('shows subsets, directory, clusters with their Controller, and live sessions, and loads nothing from elsewhere', async () => {
    const asked = new Set<string>();
    page.on('request', (request) => asked.add(new URL(request.url()).origin));
    await logIn();
    await page.waitForSelector('#clusters .crown');
    expect(await page.textContent('#subsets')).toMatch(/eu.*front1\.eu\.isp\.example.*front2\.us\.isp\.example/s);
    expect(await page.textContent('#directories')).toMatch(/ldap-master\.isp\.example.*ldap-us\.isp\.example.*lag 0 ms/s);
    expect(await page.locator('#clusters .crown').count()).toBe(2);
    expect(await page.locator('#sessions tbody tr').count()).toBe(6);
    expect(await page.textContent('#verdict')).toContain('all well');
    await picture('overview');
    await page.emulateMedia({ colorScheme: 'dark' });
    await picture('overview-dark');
    await page.emulateMedia({ colorScheme: 'light' });
    expect([...asked].filter((origin) => origin !== 'null')).toEqual([admin.url]);
    expect(complaints).toEqual([]);
  });

  it('names what is wrong in words and signs, not by colour alone', async () => {
    services.splice(
      0,
      services.length,
      ...fakeServices().filter((service) => !service.name.includes('west') && service.role !== 'replication'),
      fakeReplication(45_000),
      fakeMember('back2.west.isp.example', 'west.isp.example', {
        controller: 'back2.west.isp.example',
        term: 4,
        states: ['dead', 'active'],
      }),
    );
    await logIn();
    await page.waitForSelector('.finding');
    const findings = await page.textContent('#findings');
    expect(findings).toMatch(/✖\s*failure.*back1\.west\.isp\.example is dead/s);
    expect(findings).toContain('is 45 s and 17 changes behind');
    expect(await page.textContent('#clusters')).toMatch(/back1\.west\.isp\.example.*✖\s*dead/s);
    await picture('degraded');
  });

  it('answers where a user is', async () => {
    await logIn();
    await page.fill('#why-address', 'alice@isp.example');
    await page.click('#why-form button');
    await page.waitForSelector('#why-answer dl');
    const answer = await page.textContent('#why-answer');
    expect(answer).toMatch(/served.*back1\.west\.isp\.example/s);
    expect(answer).toContain('uid=alice,cn=isp.example,o=mail');
    await picture('why');
    await page.fill('#why-address', '<img src=x onerror=alert(1)>@isp.example');
    await page.click('#why-form button');
    await expect.poll(() => page.textContent('#why-answer')).toContain('not an account name');
    expect(await page.locator('#why-answer img').count()).toBe(0);
  });

  it('can be read on a phone', async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    await logIn();
    await page.waitForSelector('#clusters .crown');
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390);
    await picture('phone');
  });

  it('kills a member of the demo after asking', async () => {
    await logIn();
    page.on('dialog', (dialog) => void dialog.accept());
    await page.click('[data-focus="kill back2.east.isp.example"]');
    await expect.poll(() => killed).toEqual(['back2.east.isp.example']);
  });

  it('shows that the server is lost and greys out what is old, and recovers by itself', async () => {
    await logIn();
    await page.waitForSelector('#clusters .crown');
    const port = admin.port;
    await admin[Symbol.asyncDispose]();
    await page.waitForSelector('#banner:not([hidden])', { timeout: 10_000 });
    expect(await page.textContent('#banner')).toContain('No answer from this node');
    await page.waitForSelector('#app.stale', { timeout: 20_000 });
    expect(await page.textContent('#age')).toMatch(/as of \d+ s ago/);
    await picture('lost');
    admin = await startFixture(port);
    // The new process knows no sessions of the old one: the way back is the login.
    await page.waitForSelector('#login:not([hidden])');
    expect(await page.isVisible('#banner')).toBe(false);
  });
});
