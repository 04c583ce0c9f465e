#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"

namespace bulkhead::agent {
namespace {

bool load_module(const char* path, Failure& failure) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed(failure, "opening the module %s", path);
  const bool good = syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST;
  if (!good) failed(failure, "loading the module %s", path);
  close(fd);
  return good;
}

}  // namespace

// Goes on after a module that fails, since the zone may work without it; the first failure is the one reported.
bool load_modules(Failure& failure) {
  FILE* const list = fopen("/bulkhead/modules", "re");
  if (list == nullptr) return true;  // a kernel with everything built in
  bool good = true;
  char line[256];
  while (fgets(line, sizeof line, list) != nullptr) {
    line[strcspn(line, "\n")] = 0;
    if (line[0] == 0) continue;
    Failure this_one;
    if (!load_module(line, this_one) && good) {
      good = false;
      failure = this_one;
    }
  }
  fclose(list);
  return good;
}

}  // namespace bulkhead::agent
