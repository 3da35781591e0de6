/**
 * Our structure against that of another program: the parts that @zone-eu/mailsplit sees, with their headers and bodies, octet by octet.
 * It leaves embedded messages closed, so they are compared as one part.
 */
import { once } from 'node:events';
import { Splitter } from '@zone-eu/mailsplit';
import { expect, test } from 'vitest';
import { type MimePart, scanMessage } from '#protocol/mime/part.ts';

const cases: Record<string, string> = {
  'a plain message': 'Subject: x\n\nbody\nmore\n',
  'a message without a body': 'Subject: x\n\n',
  'two parts':
    'Content-Type: multipart/mixed; boundary="b b"\n\npre\n--b b\nContent-Type: text/plain\n\none\n--b b\nContent-Type: text/html\n\n<two>\n\n--b b--\npost\n',
  'parts within parts':
    'Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/alternative; boundary=aa\n\n--aa\n\nplain\n--aa\nContent-Type: text/html\n\n<p>\n--aa--\n\n--a\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\nAAAA\nBBBB\n--a--\n',
  'an embedded message':
    'Content-Type: multipart/mixed; boundary=a\n\n--a\n\nsee below\n--a\nContent-Type: message/rfc822\nContent-Disposition: attachment\n\nSubject: inner\n\nx\n--a--\n',
  'folded headers': 'Subject: a\n b\nContent-Type: multipart/mixed;\n boundary="f"\n\n--f\nX: y\n  z\n\nq\n--f--\n',
  'a closing delimiter that is missing': 'Content-Type: multipart/mixed; boundary=a\n\n--a\n\none\n--a\n\ntwo\n',
};

test.each(Object.entries(cases))('%s has the same parts', async (_name, text) => {
  const raw = Buffer.from(text.replaceAll('\n', '\r\n'));
  expect(ours(raw)).toEqual(await theirs(raw));
});

function ours(raw: Buffer): string[] {
  const out: string[] = [];
  const visit = (part: MimePart): void => {
    if (part.kind === 'multipart') for (const child of part.children) visit(child);
    else out.push(`${part.type}/${part.subtype}: ${raw.toString('latin1', part.bodyStart, part.end)}`);
  };
  visit(scanMessage(raw));
  return out;
}

async function theirs(raw: Buffer): Promise<string[]> {
  const splitter = new Splitter({ ignoreEmbedded: true });
  const out: { type: string; body: string }[] = [];
  let current: { type: string; body: string } | undefined;
  splitter.on('data', (chunk) => {
    if (chunk.type === 'node') {
      current = undefined;
      if (chunk.multipart) return;
      current = { type: chunk.contentType || 'text/plain', body: '' };
      out.push(current);
    } else if (chunk.type === 'body' && current !== undefined) current.body += chunk.value.toString('latin1');
  });
  splitter.end(raw);
  await once(splitter, 'end');
  return out.map(({ type, body }) => `${type}: ${body}`);
}
