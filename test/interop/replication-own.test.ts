import { describe } from 'vitest';
import { startOwnDirectory } from './own-directory.ts';
import { replicationSuite } from './replication-suite.ts';

describe('replication from our server to our server', () => {
  replicationSuite((role) => startOwnDirectory(role));
});
