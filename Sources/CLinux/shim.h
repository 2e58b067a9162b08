// The one door to what Linux has and Swift's Glibc module leaves out, because it is built without _GNU_SOURCE.
#ifndef LACUNA_CLINUX_H
#define LACUNA_CLINUX_H

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/types.h>
#include <sys/vfs.h>

// fallocate(2). Declared here, since <fcntl.h> shows it only with _GNU_SOURCE.
extern int fallocate(int descriptor, int mode, off_t offset, off_t length);

// sync_file_range(2) starts writing back, and waits for it; it makes nothing durable.
extern int sync_file_range(int descriptor, off_t offset, off_t length, unsigned int flags);
static const unsigned int lacuna_SYNC_FILE_RANGE_WRITE_AND_WAIT = 1 | 2 | 4;

// madvise(2), since Linux 5.14: makes pages present for reading or writing, with an error where a fault would raise a signal.
static const int lacuna_MADV_POPULATE_READ = 22;
static const int lacuna_MADV_POPULATE_WRITE = 23;

// fcntl(2): an open file description lock, which belongs to the opening rather than to the process.
static const int lacuna_F_OFD_SETLK = 37;

// ioctl(2) on a block device. The macros compute, so Swift does not see them.
static const unsigned long lacuna_BLKGETSIZE64 = BLKGETSIZE64;

#endif
