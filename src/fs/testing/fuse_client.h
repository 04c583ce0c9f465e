// The guest's kernel, as far as a file server sees it: makes requests and reads replies.
#pragma once
#include <fcntl.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fs/server/server.h"

namespace bulkhead::fs::test {

using Bytes = std::vector<std::byte>;

template <class T>
Bytes bytes_of(const T& value) {
  const auto* const data = reinterpret_cast<const std::byte*>(&value);
  return {data, data + sizeof value};
}
inline Bytes text(std::string_view value) {  // with its NUL
  const auto* const data = reinterpret_cast<const std::byte*>(value.data());
  Bytes out{data, data + value.size()};
  out.push_back(std::byte{0});
  return out;
}
inline Bytes raw(std::string_view value) {
  Bytes out = text(value);
  out.pop_back();
  return out;
}
inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

struct Answer {
  int error = 0;
  bool none = false;  // no reply at all
  Bytes payload;
  template <class T>
  T as(std::size_t at = 0) const {
    T value{};
    if (payload.size() >= at + sizeof value) std::memcpy(&value, payload.data() + at, sizeof value);
    return value;
  }
  std::string string() const { return {reinterpret_cast<const char*>(payload.data()), payload.size()}; }
};

class FuseClient {
 public:
  explicit FuseClient(Server& server) : server_{server} {}

  Answer send(const Bytes& message) {
    const auto bytes = server_.handle(message, reply_);
    if (bytes.empty()) return {0, true, {}};
    fuse_out_header header{};
    std::memcpy(&header, bytes.data(), sizeof header);
    return {-header.error, false, {bytes.begin() + sizeof header, bytes.end()}};
  }
  Answer ask(u32 opcode, u64 node, const Bytes& body = {}) {
    fuse_in_header header{};
    header.len = static_cast<u32>(sizeof header + body.size());
    header.opcode = opcode;
    header.unique = ++unique_;
    header.nodeid = node;
    header.uid = uid;
    header.gid = gid;
    return send(bytes_of(header) + body);
  }

  Answer init(u32 minor = FUSE_KERNEL_MINOR_VERSION, u32 flags = ~0u) {
    fuse_init_in in{};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = minor;
    in.flags = flags;
    return ask(FUSE_INIT, 0, bytes_of(in));
  }
  Answer lookup(u64 parent, std::string_view name) { return ask(FUSE_LOOKUP, parent, text(name)); }
  u64 node(u64 parent, std::string_view name) { return lookup(parent, name).as<fuse_entry_out>().nodeid; }
  Answer create(u64 parent, std::string_view name, u32 mode = 0644, u32 flags = O_RDWR | O_CREAT) {
    fuse_create_in in{};
    in.flags = flags;
    in.mode = S_IFREG | mode;
    return ask(FUSE_CREATE, parent, bytes_of(in) + text(name));
  }
  static u64 created_handle(const Answer& answer) { return answer.as<fuse_open_out>(sizeof(fuse_entry_out)).fh; }
  Answer open(u64 node, u32 flags, u32 opcode = FUSE_OPEN) {
    return ask(opcode, node, bytes_of(fuse_open_in{flags, 0}));
  }
  Answer read(u64 node, u64 handle, u64 offset, u32 size, u32 opcode = FUSE_READ) {
    fuse_read_in in{};
    in.fh = handle;
    in.offset = offset;
    in.size = size;
    return ask(opcode, node, bytes_of(in));
  }
  Answer write(u64 node, u64 handle, u64 offset, std::string_view data, u32 flags = 0) {
    fuse_write_in in{};
    in.fh = handle;
    in.offset = offset;
    in.size = static_cast<u32>(data.size());
    in.write_flags = flags;
    return ask(FUSE_WRITE, node, bytes_of(in) + raw(data));
  }
  Answer release(u64 node, u64 handle, u32 opcode = FUSE_RELEASE) {
    fuse_release_in in{};
    in.fh = handle;
    return ask(opcode, node, bytes_of(in));
  }
  void forget(u64 node, u64 times) { ask(FUSE_FORGET, node, bytes_of(fuse_forget_in{times})); }

  struct Entry {
    std::string name;
    u64 inode, offset, node;
  };
  // A whole folder in pieces of `size` bytes.
  std::vector<Entry> list(u64 node, u32 size, bool plus) {
    const u64 handle = open(node, O_RDONLY, FUSE_OPENDIR).as<fuse_open_out>().fh;
    std::vector<Entry> out;
    for (u64 offset = 0;;) {
      const Answer answer = read(node, handle, offset, size, plus ? FUSE_READDIRPLUS : FUSE_READDIR);
      if (answer.error != 0 || answer.payload.empty()) break;
      for (std::size_t at = 0; at < answer.payload.size();) {
        const u64 number = plus ? answer.as<fuse_entry_out>(at).nodeid : 0;
        if (plus) at += sizeof(fuse_entry_out);
        const auto entry = answer.as<fuse_dirent>(at);
        out.push_back({answer.string().substr(at + FUSE_NAME_OFFSET, entry.namelen), entry.ino, entry.off, number});
        offset = entry.off;
        at += (FUSE_NAME_OFFSET + entry.namelen + 7) / 8 * 8;
      }
    }
    release(node, handle, FUSE_RELEASEDIR);
    return out;
  }

  u32 uid = 0, gid = 0;

 private:
  Server& server_;
  Reply reply_;
  u64 unique_ = 0;
};

// A folder on the host that goes with the test.
class Folder {
 public:
  Folder() {
    std::string name = std::filesystem::temp_directory_path() / "bulkhead-fs-XXXXXX";
    path = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  void put(const std::string& name, std::string_view content) const { std::ofstream{path / name} << content; }
  std::string get(const std::string& name) const {
    std::ifstream in{path / name};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  std::filesystem::path path;
};

}  // namespace bulkhead::fs::test
