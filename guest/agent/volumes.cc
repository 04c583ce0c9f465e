#include "guest/agent/volumes.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"

namespace bulkhead::agent {
namespace {

// `path` and the folders above it, as far as they are not there. The last is a folder or an empty file.
bool make_place(char* path, bool folder) {
  for (char* slash = strchr(path + 1, '/'); slash != nullptr; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    const bool good = mkdir(path, 0755) == 0 || errno == EEXIST;
    *slash = '/';
    if (!good) return false;
  }
  if (folder) return mkdir(path, 0755) == 0 || errno == EEXIST;
  const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY | O_CLOEXEC, 0644);
  if (file >= 0) close(file);
  return file >= 0 || errno == EEXIST;
}

}  // namespace

bool mount_files(Failure& failure) {
  char way[16];
  if (!command_line_value(kFilesWord, way, sizeof way)) return true;
  mkdir("/run/bulkhead", 0700);
  mkdir(kFilesPlace, 0700);
  if (strcmp(way, "channel") == 0) return mount_channel_files(kFilesPlace, failure);
  if (mount(kFilesTag, kFilesPlace, "virtiofs", MS_NODEV | MS_NOSUID, nullptr) != 0)
    return failed(failure, "mounting the host's files by virtio-fs");
  return true;
}

bool bind_volume(char* volume, Failure& failure) {
  char* const mode = strchr(volume, ' ');
  char* const target = mode != nullptr ? strchr(mode + 1, ' ') : nullptr;
  if (target == nullptr || target[1] != '/' || strlen(volume) > 4096)
    return failed_plainly(failure, "the start request has a volume that is none");
  *mode = *target = 0;
  char* const place = target + 1;
  const bool read_only = strcmp(mode + 1, "ro") == 0;
  char source[128];
  snprintf(source, sizeof source, "%s/%s", kFilesPlace, volume);
  struct stat status{};
  if (stat(source, &status) != 0) return failed(failure, "looking for the volume of %.200s", place);
  for (size_t length = strlen(place); length > 1 && place[length - 1] == '/'; --length) place[length - 1] = 0;
  if (!make_place(place, S_ISDIR(status.st_mode)))
    return failed(failure, "making a place for a volume at %.200s", place);
  if (mount(source, place, nullptr, MS_BIND, nullptr) != 0)
    return failed(failure, "mounting a volume at %.200s", place);
  const unsigned long flags = MS_REMOUNT | MS_BIND | MS_NODEV | MS_NOSUID | (read_only ? MS_RDONLY : 0);
  if (mount(nullptr, place, nullptr, flags, nullptr) != 0)
    return failed(failure, "making the volume at %.200s what it shall be", place);
  return true;
}

}  // namespace bulkhead::agent
