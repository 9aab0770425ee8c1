/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a segment.  Called by any thread; no state of its own.
 */
#include "xseg/segfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int segfile_path(const char *name, char path[SEGFILE_PATH_BYTES])
{
    if (!name || name[0] == '\0' || name[0] == '.')
        return -EINVAL;
    size_t len = strlen(name);
    if (len > SEGFILE_NAME_MAX ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                     "0123456789._-") != len)
        return -EINVAL;
    snprintf(path, SEGFILE_PATH_BYTES, SHM_DIR "/%s", name);
    return 0;
}

static bool segfile_user_trusted(uid_t user, uid_t owner)
{
    return user == 0 || user == geteuid() || user == owner;
}

/* True if nobody but its owner can take a name in /dev/shm away. */
static bool segfile_directory_trusted(uid_t owner)
{
    struct stat st;
    return stat(SHM_DIR, &st) == 0 && segfile_user_trusted(st.st_uid, owner) &&
           (!(st.st_mode & S_IWOTH) || (st.st_mode & S_ISVTX));
}

static bool segfile_trusted(const struct stat *st, uid_t owner)
{
    return S_ISREG(st->st_mode) && segfile_user_trusted(st->st_uid, owner) &&
           !(st->st_mode & S_IWOTH) && st->st_nlink == 1;
}

int segfile_open(const char *name, uid_t owner, uint64_t *size_bytes)
{
    char path[SEGFILE_PATH_BYTES];
    struct stat st;
    int rc = segfile_path(name, path);
    if (rc < 0)
        return rc;
    /* A FIFO or a device of that name is not waited for. */
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ELOOP ? -EPERM : -errno;
    if (fstat(fd, &st) < 0)
        rc = -errno;
    else if (st.st_nlink == 0)
        rc = -ENOENT; /* removed since it was opened */
    else if (!segfile_trusted(&st, owner) || !segfile_directory_trusted(owner))
        rc = -EPERM;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    *size_bytes = (uint64_t)st.st_size;
    return fd;
}

int segfile_make(uint64_t size_bytes, mode_t mode, gid_t gid)
{
    int rc, fd = open(SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if ((gid != 0 && gid != (gid_t)-1 && fchown(fd, (uid_t)-1, gid) < 0) ||
        fchmod(fd, mode) < 0) {
        rc = -errno;
        goto fail;
    }
    do { /* a signal may interrupt a large allocation; what it got stays */
        rc = -posix_fallocate(fd, 0, (off_t)size_bytes);
    } while (rc == -EINTR);
    if (rc == 0)
        return fd;
    if (rc == -ENOMEM || rc == -EFBIG)
        rc = -ENOSPC;
fail:
    close(fd);
    return rc;
}

int segfile_link(int fd, const char *name)
{
    char path[SEGFILE_PATH_BYTES], fd_path[40];
    int rc = segfile_path(name, path);
    if (rc < 0)
        return rc;
    snprintf(fd_path, sizeof(fd_path), "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, fd_path, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ? -errno
                                                                            : 0;
}
