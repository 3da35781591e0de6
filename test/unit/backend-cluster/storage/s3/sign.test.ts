import { describe, expect, it } from 'vitest';
import { encodePath, encodeQuery, sha256, signed } from '#backend-cluster/storage/s3/sign.ts';
import { Secret } from '#common/secret.ts';

// The examples of the Amazon S3 API reference, "Signature Calculations for the Authorization Header".
const credentials = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: new Secret('wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'),
};
const host = 'examplebucket.s3.amazonaws.com';
const common = { atMs: Date.UTC(2013, 4, 24), region: 'us-east-1', query: {}, bodyHash: sha256([]) };

describe('a request is signed as the reference shows', () => {
  it.each([
    [
      'a range of an object',
      { ...common, method: 'GET', path: '/test.txt', headers: { host, range: 'bytes=0-9' } },
      'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    ],
    [
      'a new object with a name that needs encoding',
      {
        ...common,
        method: 'PUT',
        path: encodePath('/test$file.text'),
        headers: { host, date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
        bodyHash: sha256([Buffer.from('Welcome to '), Buffer.from('Amazon S3.')]),
      },
      '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
    ],
    [
      'a listing',
      { ...common, method: 'GET', path: '/', query: { prefix: 'J', 'max-keys': '2' }, headers: { host } },
      '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
    ],
  ])('%s', (_, request, signature) => {
    expect(signed(request, credentials).authorization).toMatch(new RegExp(`Signature=${signature}$`));
  });

  it('with every character encoded that the reference wants encoded', () => {
    expect(encodePath("/a b/c'(d)*!~é")).toBe('/a%20b/c%27%28d%29%2A%21~%C3%A9');
    expect(encodeQuery({ b: '1/2', a: '' })).toBe('a=&b=1%2F2');
  });
});
