import { describe } from 'vitest';
import { startOwnDirectory } from './own-directory.ts';
import { replicationSuite } from './replication-suite.ts';
import { startSlapd } from './slapd-server.ts';

describe('replication from OpenLDAP with a session log to OpenLDAP', () => {
  replicationSuite((role) => (role === 'master' ? startSlapd({ isProvider: true, sessionLog: 1000 }) : startSlapd({ withSuffix: false })));
});

describe('replication from OpenLDAP without a session log to OpenLDAP', () => {
  replicationSuite((role) => (role === 'master' ? startSlapd({ isProvider: true }) : startSlapd({ withSuffix: false })));
});

describe('replication from OpenLDAP to our server', () => {
  replicationSuite((role) => (role === 'master' ? startSlapd({ isProvider: true, sessionLog: 1000 }) : startOwnDirectory('replica')));
});

describe('replication from our server to OpenLDAP', () => {
  replicationSuite((role) => (role === 'master' ? startOwnDirectory('master') : startSlapd({ withSuffix: false })));
});
