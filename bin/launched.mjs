// What launch() of node24.mjs starts: the program itself, which is told to end when the process that started it is gone. That one passes every signal on
// but SIGKILL, which it never sees; then nobody would be left who could stop the program by the number that is known of it.
import { Socket } from 'node:net';
import { pathToFileURL } from 'node:url';

const [path, ...args] = process.argv.slice(2);
const launcher = new Socket({ fd: 3, readable: true, writable: false });
// Not counted among what keeps a process going: who has nothing to do any more ends as ever.
launcher.unref();
launcher.on('error', () => {});
launcher.on('close', () => process.kill(process.pid, 'SIGTERM'));
launcher.resume();
process.argv = [process.argv[0], path, ...args];
await import(pathToFileURL(path).href);
