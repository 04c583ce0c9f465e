// The pod agent: runs the containers of a pod in its zone. One thread, one poll loop; children do what may block.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "container/ttrpc/frame.h"
#include "guest/pod/pod.pb.h"

namespace bulkhead::pod {

inline constexpr std::uint32_t kOldestVersion = 1, kNewestVersion = 1;
inline constexpr char kShared[] = "/run/bulkhead/share";  // where the zone's folder of shared files is mounted
inline constexpr char kCgroups[] = "/sys/fs/cgroup";
inline constexpr char kService[] = "bulkhead.pod.v1.Pod";

// How a call ends [grpc "Status codes"].
enum class Code : std::uint8_t {
  kOk = 0,
  kUnknown = 2,
  kInvalid = 3,
  kNotFound = 5,
  kExists = 6,
  kPrecondition = 9,
  kUnimplemented = 12
};

// What went wrong: a line with errno's text in it.
struct Problem {
  Code code = Code::kUnknown;
  std::string text;
};
[[gnu::format(printf, 1, 2)]] std::string text_of(const char* format, ...);
[[gnu::format(printf, 1, 2)]] std::string errno_text(const char* format, ...);  // ends with errno's text

// files.cc
bool write_file(const std::string& path, std::string_view text);
bool read_file(const std::string& path, std::string& out);

// ---- What the child of a container or of an added process becomes (become.cc). Never returns.

// Descriptors that the child gets.
struct ChildEnds {
  int control = -1;  // a message socket: reports to the agent, its word to go on
  int input = -1, output = -1, error = -1;
};
// What the agent has open of a container's namespaces.
struct Namespaces {
  int pid = -1, ipc = -1, uts = -1;
};
struct ChildReport {
  enum Kind : std::uint32_t { kReady = 1, kFailed = 2, kTerminal = 3 } kind;
  std::uint32_t missing;  // kFailed: the program is not there, or is not to be executed
  char text[480];
};
// reports.cc: over the message socket between the two. `fd`: a descriptor that goes along, or -1.
bool send_report(int socket, const ChildReport& report, int fd);
// As recvmsg(): the size, 0 at the end; `fd` is -1 when none came.
ssize_t receive_report(int socket, ChildReport& report, int& fd);
[[noreturn]] void become_container(const Container& container, const std::string& cgroup, const Namespaces& joined,
                                   const ChildEnds& ends);
[[noreturn]] void become_added_process(const Container& container, const Process& process, const std::string& cgroup,
                                       int first_process, const ChildEnds& ends);

// ---- Pieces of it: each false with `problem` set.
// root.cc
bool make_root(const Container& container, std::string& problem);
bool hide_paths(const Container& container, std::string& problem);
bool make_folder(const std::string& path);  // with its parents; false with errno
// privilege.cc
bool set_limits(const Process& process, std::string& problem);
bool become_user(const Process& process, const std::string& seccomp, std::uint32_t seccomp_flags, std::string& problem);

// cgroup.cc
bool make_cgroup(const std::string& path, std::string& problem);  // with every controller that there is
bool apply_settings(const std::string& path, const google::protobuf::RepeatedPtrField<Setting>& settings,
                    std::string& problem);
void remove_cgroup(const std::string& path);
std::uint64_t cgroup_number(const std::string& path, const char* file, const char* key);
void cgroup_statistics(const std::string& path, StatsResponse& out);

}  // namespace bulkhead::pod
