/**
 * Serves the console: one page and its own assets, from this directory and nowhere else. The page holds no data; what it shows it asks of
 * the admin API, like any other client. The policy lets it load nothing and speak to nobody but this server.
 */
import { readFile } from 'node:fs/promises';
import type { HttpServer } from '#common/http/server.ts';

const assets: readonly { readonly path: string; readonly file: string; readonly type: string }[] = [
  { path: '/', file: 'index.html', type: 'text/html; charset=utf-8' },
  { path: '/console/style.css', file: 'style.css', type: 'text/css; charset=utf-8' },
  ...['main.js', 'dom.js', 'api.js', 'overview.js', 'why.js', 'format.js'].map((file) => ({
    path: `/console/${file}`,
    file,
    type: 'text/javascript; charset=utf-8',
  })),
];

const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "form-action 'none'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
].join('; ');

/** Adds the page and its assets; they are read once, now. */
export async function addConsole(server: HttpServer): Promise<void> {
  for (const { path, file, type } of assets) {
    const content = await readFile(new URL(`./assets/${file}`, import.meta.url));
    server.get(path, (_request, reply) =>
      reply
        .type(type)
        .header('content-security-policy', policy)
        .header('x-frame-options', 'DENY')
        .header('cache-control', 'no-cache')
        .send(content),
    );
  }
}
