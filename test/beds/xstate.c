/* Lets Debian's user-mode Linux run on processors whose register state has grown since: see nfs.sh. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define XSTATE 0x202
#define ROOM 32768

long ptrace(enum __ptrace_request request, ...) {
  static long (*real)(enum __ptrace_request, ...);
  static size_t whole;
  static char state[ROOM]; /* not on the small stacks of guest threads */
  if (!real) real = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
  va_list list;
  va_start(list, request);
  int pid = va_arg(list, int);
  void *address = va_arg(list, void *), *data = va_arg(list, void *);
  va_end(list);
  if ((unsigned long)address != XSTATE || (request != PTRACE_GETREGSET && request != PTRACE_SETREGSET)) return real(request, pid, address, data);
  struct iovec *asked = data;
  if (!whole) {
    struct iovec all = {state, ROOM};
    if (real(PTRACE_GETREGSET, pid, address, &all) == 0) whole = all.iov_len;
  }
  if (request == PTRACE_GETREGSET || asked->iov_len >= whole) return real(request, pid, address, data);
  /* What the guest does not know it does not use: initial state. */
  memset(state, 0, whole);
  memcpy(state, asked->iov_base, asked->iov_len);
  struct iovec all = {state, whole};
  return real(request, pid, address, &all);
}
