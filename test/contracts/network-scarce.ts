/** A process that echoes at a port of the direct network, for a parent that leaves it few descriptors. Prints the port; ends with its standard input. */
import { networks } from './network-table.ts';

const listener = await networks.directNetwork?.listen({}, (connection) => {
  connection.handle({ data: (chunk) => void connection.write(chunk), close: () => {} });
});
process.stdout.write(`${listener?.port}\n`);
process.stdin.resume().once('end', () => process.exit(0));
