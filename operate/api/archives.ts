/** Whole accounts over the admin API: an archive goes out, or comes in, as it is read. */
import { Readable } from 'node:stream';
import { type ErrorCode, errorCatalogue } from '#common/errors/catalogue.ts';
import { PlatformError } from '#common/errors/platform-error.ts';
import type { HttpServer } from '#common/http/server.ts';
import type { Connection } from '#common/network/network.ts';
import { sendAndRead } from '#common/network/streams.ts';
import { clustersOf } from './accounts.ts';
import type { AdminOptions } from './options.ts';
import { storedAccount } from './store.ts';

type Address = { Params: { address: string } };

/** Media type of an archive. */
export const archiveType = 'application/x-tar';
const answerBytesMax = 1024 * 1024;

/** Adds the routes. */
export function addArchives(server: HttpServer, options: AdminOptions): void {
  server.addContentTypeParser(archiveType, (_request, payload, done) => done(null, payload));

  server.get<Address>('/api/v1/accounts/:address/archive', async (request, reply) => {
    const { cluster, uuid } = await storedAccount(options, request.params.address);
    const channel = await clustersOf(options).openArchive(cluster, uuid, 'export', options.node);
    return reply.type(archiveType).header('content-disposition', `attachment; filename="${uuid}.tar"`).send(readableOf(channel));
  });

  server.post<Address>('/api/v1/accounts/:address/archive', { bodyLimit: Number.MAX_SAFE_INTEGER }, async (request) => {
    if (!(request.body instanceof Readable)) throw new PlatformError('ADMIN_BAD_REQUEST', `expected an archive of type ${archiveType}`);
    const { cluster, uuid } = await storedAccount(options, request.params.address);
    const channel = await clustersOf(options).openArchive(cluster, uuid, 'import', options.node);
    const answer = JSON.parse((await sendAndRead(channel, request.body as AsyncIterable<Buffer>, answerBytesMax)).toString('utf8')) as {
      readonly ok?: boolean;
      readonly report?: object;
      readonly code?: string;
      readonly message?: string;
    };
    if (answer.ok === true) return answer.report;
    const code = answer.code !== undefined && Object.hasOwn(errorCatalogue, answer.code) ? (answer.code as ErrorCode) : 'BUG_UNEXPECTED';
    throw new PlatformError(code, answer.message ?? 'no reason given');
  });
}

/** A channel as a stream: the reader sets the pace. */
function readableOf(channel: Connection): Readable {
  const stream = new Readable({
    read: () => channel.resume(),
    destroy: (error, done) => {
      channel.destroy();
      done(error);
    },
  });
  channel.handle({
    data: (chunk) => {
      if (!stream.push(chunk)) channel.pause();
    },
    end: () => {
      stream.push(null);
      channel.end();
    },
    close: (error) => {
      if (!stream.readableEnded && error !== undefined) stream.destroy(error);
    },
  });
  return stream;
}
