#include "zone/oci/jailed.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zone/oci/archive_reader.h"

namespace bulkhead::zone {
namespace {

constexpr std::size_t kMostSaid = 64_MiB;
constexpr int kPollMs = 100;
constexpr unsigned kKept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP};
constexpr long kCalls[] = {SYS_fchmod,  SYS_fchown, SYS_fsetxattr, SYS_geteuid, SYS_getuid,
                           SYS_getegid, SYS_getgid, SYS_fadvise64, SYS_ioctl,   SYS_umask};

Result<std::string> confined(const std::vector<fs::JailedPath>& paths, const JailedWork& work) {
  if (fs::own_namespaces()) BH_TRY(fs::new_root(paths, "/proc/self/fd"));
  BH_TRY(::geteuid() == 0 ? fs::seal(kKept, kCalls) : fs::seal({}, kCalls));
  Progress quiet{Progress::Show::kNever};
  Workshop workshop{quiet, nullptr};
  return work(workshop);
}

[[noreturn]] void be_the_child(const std::vector<fs::JailedPath>& paths, const JailedWork& work, int out,
                               pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  ::setpgid(0, 0);
  const Result<std::string> done = confined(paths, work);
  std::string_view said = done ? std::string_view{*done} : std::string_view{done.error().message};
  while (!said.empty()) {
    const ssize_t size = ::write(out, said.data(), said.size());
    if (size < 0 && errno != EINTR) ::_exit(127);
    if (size > 0) said.remove_prefix(static_cast<std::size_t>(size));
  }
  ::_exit(done ? 0 : 1);
}

// All that the child says. False when a signal tells us to end.
bool listen(int from, Workshop& workshop, std::string& said) {
  while (true) {
    pollfd fds[2] = {{from, POLLIN, 0}, {workshop.signals != nullptr ? workshop.signals->fd() : -1, POLLIN, 0}};
    ::poll(fds, 2, kPollMs);
    workshop.progress.tick();
    if (fds[1].revents != 0) {
      const int number = workshop.signals->next();
      if (number != 0 && number != SIGWINCH) return false;
    }
    if (fds[0].revents == 0) continue;
    char piece[16384];
    const ssize_t size = ::read(from, piece, sizeof piece);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0 || said.size() > kMostSaid) return true;
    said.append(piece, static_cast<std::size_t>(size));
  }
}

}  // namespace

Result<std::string> in_jail(const std::vector<fs::JailedPath>& paths, Workshop& workshop, const JailedWork& work) {
  const Utf8Names names;  // the child may have no files to make another one of
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe");
  UniqueFd in{ends[0]}, out{ends[1]};
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_errno("starting a process to unpack the image");
  if (child == 0) be_the_child(paths, work, out.get(), parent);
  out.reset();
  std::string said;
  const bool heard = listen(in.get(), workshop, said);
  if (!heard || said.size() > kMostSaid) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!heard) return fail("interrupted while unpacking the image");
  if (WIFSIGNALED(status)) return fail("the process that unpacks the image ended by signal {}", WTERMSIG(status));
  if (WEXITSTATUS(status) == 0) return said;
  if (WEXITSTATUS(status) == 1 && !said.empty()) return std::unexpected(Error{std::move(said)});
  return fail("the process that unpacks the image ended without a word");
}

}  // namespace bulkhead::zone
