// A zone's file server: a process of its own that shows folders and files of this host to it, and nothing else of it.
#pragma once
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "fs/server/counters.h"

namespace bulkhead::fs {

// What a zone may use of this host's files. The guest sees it as NAME in the root of its file system from the host.
// Mounts below `path` are followed, also those that come later, if `path` lies on a mount that is shared
// (mount --make-shared). Taking such a mount away: umount -l, for the server may hold files in it until the guest has
// forgotten them.
struct ShareSpec {
  std::string name;  // one component, 1 to 64 letters, digits, '.', '_' or '-'
  std::string path;  // a folder or a regular file; absolute
  bool read_only = false;
};

struct FileServerConfig {
  std::vector<ShareSpec> shares;           // 1 to 64
  unsigned lanes = 4;                      // requests that are carried out at the same time: 1 to 16
  std::string program = "/proc/self/exe";  // whose main calls serve_if_asked()
};

class FileServer {
 public:
  static constexpr unsigned kMaxShares = 64, kMaxLanes = 16;
  // Waits until it serves. Errors: a share that is not there, or no such file; the process cannot be started.
  static Result<std::unique_ptr<FileServer>> start(const FileServerConfig& config);
  // It ends when its lanes are closed; so the lanes' owner goes first, or it is killed here.
  ~FileServer();
  FileServer(const FileServer&) = delete;

  // Our ends of the lanes, once: connected, not blocking.
  std::vector<UniqueFd> take_lanes() { return std::move(lanes_); }
  const Counts& counts() const { return *counts_; }
  pid_t process() const { return process_; }

 private:
  FileServer() = default;
  pid_t process_ = -1;
  std::vector<UniqueFd> lanes_;
  Counts* counts_ = nullptr;  // shared memory
};

// For main(), before anything else: if this process was started to be a file server, it is one until the end, and the
// result is main()'s.
inline constexpr const char* kServeArgument = "file-server";
bool asked_to_serve(int argc, char** argv);
int serve(int argc, char** argv);

}  // namespace bulkhead::fs
