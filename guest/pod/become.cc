// What a child of the agent does between clone() and execve(). It may block; the agent does not wait for it.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>

#include "guest/pod/pod.h"

namespace bulkhead::pod {
namespace {

int g_control = -1;

void report(ChildReport::Kind kind, const std::string& text, bool missing = false) {
  ChildReport out{};
  out.kind = kind;
  out.missing = missing ? 1 : 0;
  strncpy(out.text, text.c_str(), sizeof out.text - 1);
  (void)send_report(g_control, out, -1);
}

[[noreturn]] void give_up(const std::string& problem, bool missing = false) {
  report(ChildReport::kFailed, problem, missing);
  _exit(127);
}

void reset_signals() {
  for (int number = 1; number < NSIG; ++number) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

void join_namespace(int fd, int kind, const char* name) {
  if (fd >= 0 && setns(fd, kind) != 0) give_up(errno_text("joining the %s namespace", name));
}

void own_namespace(int kind, const char* name) {
  if (unshare(kind) != 0) give_up(errno_text("making a %s namespace", name));
}

void join_cgroup(const std::string& path) {
  if (!write_file(path + "/cgroup.procs", "0")) give_up(errno_text("joining the control group %s", path.c_str()));
}

void send_terminal(int master) {
  ChildReport out{};
  out.kind = ChildReport::kTerminal;
  if (!send_report(g_control, out, master)) give_up(errno_text("handing the terminal over"));
}

// A terminal of the container's own devpts; what has none gets one of the zone's, opened by the agent beforehand.
void open_terminal(const Process& process, bool console) {
  const int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  int unlock = 0;
  if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) != 0) give_up(errno_text("making a terminal from /dev/ptmx"));
  const int side = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (side < 0) give_up(errno_text("opening the terminal"));
  const winsize size{static_cast<unsigned short>(process.rows()), static_cast<unsigned short>(process.columns()), 0, 0};
  if (size.ws_col != 0) ioctl(master, TIOCSWINSZ, &size);
  (void)!fchown(side, process.uid(), static_cast<gid_t>(-1));
  int number = 0;
  if (console && ioctl(master, TIOCGPTN, &number) == 0) {
    const int file = open("/dev/console", O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0666);
    if (file >= 0) close(file);
    mount(("/dev/pts/" + std::to_string(number)).c_str(), "/dev/console", nullptr, MS_BIND, nullptr);
  }
  send_terminal(master);
  close(master);
  setsid();
  ioctl(side, TIOCSCTTY, 0);
  for (int fd = 0; fd < 3; ++fd) dup2(side, fd);
}

void connect_streams(const Process& process, const ChildEnds& ends, bool console) {
  if (process.terminal()) return open_terminal(process, console);
  setsid();
  // So that /dev/stdout and the like can be opened by the user that the process will be.
  for (const int fd : {ends.input, ends.output, ends.error}) (void)!fchown(fd, process.uid(), process.gid());
  dup2(ends.input, 0);
  dup2(ends.output, 1);
  dup2(ends.error, 2);
}

std::vector<char*> pointers(const google::protobuf::RepeatedPtrField<std::string>& strings) {
  std::vector<char*> out;
  for (const std::string& text : strings) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

// Waits for the agent's word; when the agent is gone there is nothing to do.
void wait_for_go() {
  char word;
  ssize_t size;
  do {
    size = recv(g_control, &word, 1, 0);
  } while (size < 0 && errno == EINTR);
  if (size <= 0) _exit(127);
}

void run_hook(const Hook& hook, const std::string& state) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) give_up(errno_text("making a pipe"));
  const pid_t child = fork();
  if (child < 0) give_up(errno_text("starting the hook %s", hook.path().c_str()));
  if (child == 0) {
    dup2(ends[0], 0);
    execve(hook.path().c_str(), pointers(hook.arguments()).data(), pointers(hook.environment()).data());
    _exit(127);
  }
  close(ends[0]);
  (void)!write(ends[1], state.data(), state.size());
  close(ends[1]);
  int status = 0, waited = 0;
  while (waitpid(child, &status, hook.timeout_s() != 0 ? WNOHANG : 0) == 0) {
    poll(nullptr, 0, 10);
    waited += 10;
    if (waited <= static_cast<int>(hook.timeout_s()) * 1000) continue;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    give_up(text_of("the hook %s did not end in %u s", hook.path().c_str(), hook.timeout_s()));
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    give_up(text_of("the hook %s failed with status %d", hook.path().c_str(),
                    WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)));
}

void run_start_hooks(const Container& container) {
  const std::string state = "{\"ociVersion\":\"1.0.2\",\"id\":\"" + container.name() +
                            "\",\"status\":\"created\",\"pid\":" + std::to_string(getpid()) + ",\"bundle\":\"/\"}";
  for (const Hook& hook : container.start_hooks()) run_hook(hook, state);
}

[[noreturn]] void execute(const Process& process) {
  std::vector<char*> arguments = pointers(process.arguments()), environment = pointers(process.environment());
  const std::string name = process.arguments_size() > 0 ? process.arguments(0) : "";
  if (name.empty()) give_up("there is no program to run", true);
  if (name.find('/') != std::string::npos) {
    execve(name.c_str(), arguments.data(), environment.data());
    give_up(errno_text("running %s", name.c_str()), errno == ENOENT);
  }
  std::string path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  for (const std::string& variable : process.environment())
    if (variable.starts_with("PATH=")) path = variable.substr(5);
  int error = ENOENT;
  for (std::size_t start = 0; start <= path.size();) {
    std::size_t end = path.find(':', start);
    if (end == std::string::npos) end = path.size();
    const std::string folder = path.substr(start, end - start);
    execve(((folder.empty() ? "." : folder) + "/" + name).c_str(), arguments.data(), environment.data());
    if (errno != ENOENT && errno != ENOTDIR) error = errno;
    start = end + 1;
  }
  errno = error;
  give_up(error == ENOENT ? text_of("running %s: executable file not found in $PATH", name.c_str())
                          : errno_text("running %s", name.c_str()),
          error == ENOENT);
}

[[noreturn]] void finish(const Container& container, const Process& process) {
  std::string problem;
  // As root first: the folder may be one that the user may not look up, but may be in.
  const bool entered = chdir(process.directory().c_str()) == 0;
  if (!become_user(process, container.seccomp(), container.seccomp_flags(), problem)) give_up(problem);
  if (!entered && chdir(process.directory().c_str()) != 0)
    give_up(errno_text("changing into the directory %s", process.directory().c_str()));
  execute(process);
}

}  // namespace

void become_container(const Container& container, const std::string& cgroup, const Namespaces& joined,
                      const ChildEnds& ends) {
  g_control = ends.control;
  reset_signals();
  const Process& process = container.process();
  std::string problem;
  join_cgroup(cgroup);
  own_namespace(CLONE_NEWCGROUP, "cgroup");
  join_namespace(joined.ipc, CLONE_NEWIPC, "ipc");
  join_namespace(joined.uts, CLONE_NEWUTS, "uts");
  if (container.ipc_namespace().kind() == Namespace::OWN) own_namespace(CLONE_NEWIPC, "ipc");
  if (container.uts_namespace().kind() == Namespace::OWN) own_namespace(CLONE_NEWUTS, "uts");
  own_namespace(CLONE_NEWNS, "mount");
  if (!make_root(container, problem)) give_up(problem);
  if (!container.hostname().empty() && container.uts_namespace().kind() == Namespace::OWN)
    (void)!sethostname(container.hostname().data(), container.hostname().size());
  connect_streams(process, ends, true);
  make_folder(process.directory());
  if (!set_limits(process, problem) || !hide_paths(container, problem)) give_up(problem);
  report(ChildReport::kReady, "");
  wait_for_go();
  run_start_hooks(container);
  finish(container, process);
}

void become_added_process(const Container& container, const Process& process, const std::string& cgroup,
                          int first_process, const ChildEnds& ends) {
  g_control = ends.control;
  reset_signals();
  std::string problem;
  join_cgroup(cgroup);
  if (setns(first_process, CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | CLONE_NEWNS) != 0)
    give_up(errno_text("joining the container"));
  connect_streams(process, ends, false);
  if (!set_limits(process, problem)) give_up(problem);
  report(ChildReport::kReady, "");
  wait_for_go();
  finish(container, process);
}

}  // namespace bulkhead::pod
