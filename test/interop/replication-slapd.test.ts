import { describe } from 'vitest';
import { replicationSuite } from './replication-suite.ts';
import { slapdIsMissing, startSlapd } from './slapd-server.ts';

describe.skipIf(slapdIsMissing !== undefined)('replication from OpenLDAP with a session log to OpenLDAP', () => {
  replicationSuite((role) => (role === 'master' ? startSlapd({ isProvider: true, sessionLog: 1000 }) : startSlapd({ withSuffix: false })));
});

describe.skipIf(slapdIsMissing !== undefined)('replication from OpenLDAP without a session log to OpenLDAP', () => {
  replicationSuite((role) => (role === 'master' ? startSlapd({ isProvider: true }) : startSlapd({ withSuffix: false })));
});
