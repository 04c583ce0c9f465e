#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "guest/agent/agent.h"

namespace bulkhead::agent {
namespace {

constexpr char kList[] = "/bulkhead/modules";

bool load_module(const char* path, Failure& failure) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return failed(failure, "opening the module %s", path);
  const bool good = syscall(SYS_finit_module, fd, "", 0) == 0 || errno == EEXIST;
  if (!good) failed(failure, "loading the module %s", path);
  close(fd);
  return good;
}

// A path and whether its loading waits for devices; nullptr behind the last.
const char* next_path(FILE* list, char* line, int size, bool& waits) {
  while (fgets(line, size, list) != nullptr) {
    line[strcspn(line, "\n")] = 0;
    waits = line[0] == '&';
    if (line[waits] != 0) return line + waits;
  }
  return nullptr;
}

bool load_meanwhile(const char* path, Failure& failure) {
  const pid_t child = fork();
  if (child < 0) return failed(failure, "starting a process to load the module %s", path);
  if (child > 0) return true;  // reaped with all others
  if (!load_module(path, failure)) complain(failure);
  _exit(0);
}

}  // namespace

// Goes on after a module that fails, since the zone may work without it; the first failure is the one reported.
bool load_modules(Failure& failure) {
  FILE* const list = fopen(kList, "re");
  if (list == nullptr) return true;  // a kernel with everything built in
  bool good = true, waits = false;
  char line[256];
  while (const char* const path = next_path(list, line, sizeof line, waits)) {
    Failure this_one;
    if (!(waits ? load_meanwhile(path, this_one) : load_module(path, this_one)) && good) {
      good = false;
      failure = this_one;
    }
  }
  fclose(list);
  return good;
}

void forget_modules() {
  FILE* const list = fopen(kList, "re");
  if (list == nullptr) return;
  bool waits = false;
  char line[256];
  while (const char* const path = next_path(list, line, sizeof line, waits)) unlink(path);
  fclose(list);
  unlink(kList);
}

}  // namespace bulkhead::agent
