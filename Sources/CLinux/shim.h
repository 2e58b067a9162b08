// The one door to what Linux has and Swift's Glibc module leaves out, because it is built without _GNU_SOURCE.
#ifndef LACUNA_CLINUX_H
#define LACUNA_CLINUX_H

#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/memfd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

// fallocate(2). Declared here, since <fcntl.h> shows it only with _GNU_SOURCE.
extern int fallocate(int descriptor, int mode, off_t offset, off_t length);

// renameat2(2), as above. RENAME_NOREPLACE comes from <linux/fs.h>.
extern int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags);

// memfd_create(2), as above. MFD_CLOEXEC comes from <linux/memfd.h>.
extern int memfd_create(const char *name, unsigned int flags);

// dup3(2), as above.
extern int dup3(int old_descriptor, int new_descriptor, int flags);

// memfd_create(2), since Linux 6.3: a file that can never be executed.
static const unsigned int lacuna_MFD_NOEXEC_SEAL = 8;

// fcntl(2): an open file description lock, which belongs to the opening rather than to the process.
static const int lacuna_F_OFD_SETLK = 37;

// ioctl(2) on a block device. The macros compute, so Swift does not see them.
static const unsigned long lacuna_BLKGETSIZE64 = BLKGETSIZE64;
static const unsigned long lacuna_BLKSSZGET = BLKSSZGET;
static const unsigned long lacuna_BLKDISCARD = BLKDISCARD;

// ioctl(2) on a file: its attributes, FS_NOCOW_FL and the like. As above; they take and give an int, whatever they say.
static const unsigned long lacuna_FS_IOC_GETFLAGS = FS_IOC_GETFLAGS;
static const unsigned long lacuna_FS_IOC_SETFLAGS = FS_IOC_SETFLAGS;

// renameat2(2), linkat(2): relative paths are so from the working directory.
static const int lacuna_AT_FDCWD = -100;

// ioctl(2) on a file: see <linux/fiemap.h>. The macro computes.
static const unsigned long lacuna_FS_IOC_FIEMAP = FS_IOC_FIEMAP;

// open(2): a descriptor that only refers to a file. Shown only with _GNU_SOURCE.
static const int lacuna_O_PATH = 010000000;

// accept4(2), as above.
extern int accept4(int listener, struct sockaddr *address, socklen_t *length, int flags);
static inline int lacuna_accept4(int listener, struct sockaddr *address, socklen_t *length, int flags) {
  return accept4(listener, address, length, flags);
}

// unix(7): who is at the other end of a socket. The structure is shown only with _GNU_SOURCE.
struct lacuna_ucred {
  pid_t pid;
  uid_t uid;
  gid_t gid;
};
static const int lacuna_SO_PEERCRED = SO_PEERCRED;

// fork(2), which Swift's Glibc module calls unavailable. Only for a process with one thread.
static inline pid_t lacuna_fork(void) { return fork(); }

// prctl(2), which takes any arguments: this process ends by SIGKILL when the thread that made it ends.
static inline int lacuna_endWithParent(void) { return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); }

// pidfd_open(2), which glibc 2.36 has no declaration for outside of <sys/pidfd.h>.
static inline int lacuna_pidfd_open(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

// signalfd(2): can be read from while one of these signals waits.
static inline int lacuna_signalfd(const sigset_t *signals) { return signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK); }

// gettid(2), which <unistd.h> shows only with _GNU_SOURCE.
static inline pid_t lacuna_gettid(void) { return (pid_t)syscall(SYS_gettid); }

// Has `run` called with `context` when this thread ends: what C++ has destructors of thread-local objects called by. A library whose
// function is to be called stays loaded until then. Returns 0, or another number where that is not possible.
extern int __cxa_thread_atexit_impl(void (*run)(void *), void *context, void *library);
extern void *__dso_handle __attribute__((visibility("hidden")));
static inline int lacuna_atThreadExit(void (*run)(void *), void *context) {
  return __cxa_thread_atexit_impl(run, context, &__dso_handle);
}

// Whether a system call, by its number, waits for a socket that is its first argument.
static inline int lacuna_waitsForSocket(long call) {
  return call == SYS_read || call == SYS_recvfrom || call == SYS_recvmsg || call == SYS_sendto || call == SYS_sendmsg;
}

#endif
