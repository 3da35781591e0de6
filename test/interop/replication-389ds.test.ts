import { describe } from 'vitest';
import { startDs389 } from './ds389-server.ts';
import { startOwnDirectory } from './own-directory.ts';
import { replicationSuite } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

describe('replication from 389 Directory Server to our server', () => {
  replicationSuite((role) => (role === 'master' ? startDs389() : startOwnDirectory('replica')), { mayMissFirst: true });
});

describe('replication from 389 Directory Server to OpenLDAP', () => {
  replicationSuite((role) => (role === 'master' ? startDs389() : startSlapd({ withSuffix: false })), { mayMissFirst: true });
});
