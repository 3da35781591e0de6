/** Holds a process to a share of one core by a control group of its own, so that something else than the clients is the limit. Wants root. */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';

const periodUs = 10_000;
/** Where version 1 of control groups has its controller of CPU time; version 2 has all at the root. */
const ofVersion1 = '/sys/fs/cgroup/cpu';
const root = '/sys/fs/cgroup';

/** @param share of a core, 0.3 for three tenths. Call what it returns once the process has ended. */
export function holdToShare(pid: number, share: number): () => void {
  const isOld = existsSync(`${ofVersion1}/cpu.cfs_quota_us`);
  const group = `${isOld ? ofVersion1 : root}/archipelago-bench-${pid}`;
  const quotaUs = Math.round(share * periodUs);
  if (!isOld) writeFileSync(`${root}/cgroup.subtree_control`, '+cpu');
  mkdirSync(group);
  if (isOld) {
    writeFileSync(`${group}/cpu.cfs_period_us`, String(periodUs));
    writeFileSync(`${group}/cpu.cfs_quota_us`, String(quotaUs));
  } else writeFileSync(`${group}/cpu.max`, `${quotaUs} ${periodUs}`);
  writeFileSync(`${group}/cgroup.procs`, String(pid));
  return () => rmdirSync(group);
}
