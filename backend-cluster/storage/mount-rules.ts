/**
 * What the kernel says about the file system that the store is on. Some dangers cannot be seen from one machine: a second NFS client with
 * a name cache misses files for up to 30 seconds, whatever the first one does. The mount options tell.
 */

/** One line of the kernel's mount table. */
export interface Mount {
  readonly directory: string;
  readonly type: string;
  readonly options: readonly string[];
}

/** What is wrong with a mount. */
export interface MountVerdict {
  /** Each with what to change; any one refuses the mount. */
  readonly dangers: readonly string[];
  readonly warnings: readonly string[];
}

/** The mount that a path is on, from the text of `/proc/self/mounts` (proc(5)). */
export function mountOf(table: string, path: string): Mount | undefined {
  let best: Mount | undefined;
  for (const line of table.split('\n')) {
    const [, directory, type, options] = line.split(' ');
    if (directory === undefined || type === undefined || options === undefined) continue;
    const plain = directory.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    const isAbove = path === plain || path.startsWith(plain.endsWith('/') ? plain : `${plain}/`);
    // Of two mounts on one directory the later one hides the other.
    if (isAbove && plain.length >= (best?.directory.length ?? 0)) best = { directory: plain, type, options: options.split(',') };
  }
  return best;
}

/** Judges a mount. File systems that are not known are let pass with a warning. */
export function judgeMount(mount: Mount): MountVerdict {
  const dangers: string[] = [];
  const warnings: string[] = [];
  const { type, options, directory } = mount;
  if (type === 'nfs' || type === 'nfs4') {
    const version = options.find((option) => option.startsWith('vers='))?.slice(5) ?? (type === 'nfs4' ? '4' : '3');
    if (Number(version) < 4.1) dangers.push(`${directory} is mounted with NFS ${version}; mount it with vers=4.1 or higher`);
    const isFresh = options.includes('lookupcache=none') || options.includes('noac') || options.includes('actimeo=0');
    const hasNoTimes = ['acregmin=0', 'acregmax=0', 'acdirmin=0', 'acdirmax=0'].every((option) => options.includes(option));
    if (!isFresh && !hasNoTimes) dangers.push(`${directory} is NFS that remembers names; mount it with lookupcache=none (or actimeo=0)`);
    if (options.includes('soft') || options.includes('softerr')) {
      dangers.push(`${directory} is mounted soft, which gives up on writes that may have happened; mount it hard`);
    }
  } else if (type === 'fuse.glusterfs') {
    warnings.push(`${directory} is GlusterFS: it is safe only with the caching translators off and attribute-timeout=0,entry-timeout=0`);
  } else if (['cifs', 'smb3', '9p', 'vboxsf', 'vfat', 'exfat', 'fuse.sshfs', 'fuse.s3fs'].includes(type)) {
    dangers.push(`${directory} is ${type}, which has no hard links or no order that can be relied on; use a local disk, NFS 4.1 or CephFS`);
  } else if (type === 'tmpfs' || type === 'ramfs') {
    warnings.push(`${directory} is ${type}: everything is lost when this machine stops`);
  }
  return { dangers, warnings };
}
