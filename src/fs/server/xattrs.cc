// Requests about extended attributes.
#include <sys/xattr.h>

#include <algorithm>

#include "fs/server/server.h"

namespace bulkhead::fs {
namespace {

constexpr std::size_t kMaxAttribute = 64 * 1024;  // of a value and of a list [xattr(7)]
constexpr std::string_view kCapability = "security.capability";

}  // namespace

// The user's own, and file capabilities where the host would honour them for us. Others mean something to the host:
// labels of its security modules, its overlay file systems, its access lists.
bool Server::allowed_attribute(std::string_view name) const {
  return (name.starts_with("user.") && name.size() > 5) || (config_.switch_users && name == kCapability);
}

int Server::setxattr(Call& call) {
  const auto in = call.body.take_part<fuse_setxattr_in>(FUSE_COMPAT_SETXATTR_IN_SIZE);
  if (!in) return malformed();
  const auto text = call.body.text();
  if (!text || text->size() > kMaxName || in->size > kMaxAttribute || call.body.rest().size() != in->size ||
      (in->flags & ~u32{XATTR_CREATE | XATTR_REPLACE}) != 0)
    return malformed();
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  if (const int error = writable(*of)) return error;
  if (!allowed_attribute(*text)) return forbidden(EOPNOTSUPP);
  const int flags = static_cast<int>(in->flags);
  return ::setxattr(descriptor_path(*of).c_str(), text->data(), call.body.rest().data(), in->size, flags) == 0 ? 0
                                                                                                               : errno;
}

int Server::getxattr(Call& call) {
  const auto in = call.body.take<fuse_getxattr_in>();
  std::string_view text;
  if (!in) return malformed();
  if (const int error = name(call, text)) return error;
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  if (of == root_ || !allowed_attribute(text)) return EOPNOTSUPP;
  const std::size_t size = std::min<std::size_t>(in->size, kMaxAttribute);
  const ssize_t got = ::getxattr(descriptor_path(*of).c_str(), text.data(), call.reply.room(size).data(), size);
  if (got < 0) return errno;
  if (in->size == 0)
    call.reply.put(fuse_getxattr_out{static_cast<u32>(got), 0});
  else
    call.reply.grow(static_cast<std::size_t>(got));
  return 0;
}

int Server::listxattr(Call& call) {
  const auto in = call.body.take<fuse_getxattr_in>();
  if (!in) return malformed();
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  std::string names;
  if (of != root_) {
    std::string all(kMaxAttribute, '\0');
    const ssize_t got = ::listxattr(descriptor_path(*of).c_str(), all.data(), all.size());
    if (got < 0) return errno;
    all.resize(static_cast<std::size_t>(got));
    for (std::string_view rest = all; !rest.empty();) {
      const std::string_view one = rest.substr(0, rest.find('\0'));
      if (allowed_attribute(one)) names.append(one).push_back('\0');
      rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    }
  }
  if (in->size == 0) {
    call.reply.put(fuse_getxattr_out{static_cast<u32>(names.size()), 0});
    return 0;
  }
  if (names.size() > in->size) return ERANGE;
  call.reply.put_bytes(names.data(), names.size());
  return 0;
}

int Server::removexattr(Call& call) {
  std::string_view text;
  if (const int error = name(call, text)) return error;
  const NodePtr of = node(call.node());
  if (of == nullptr) return kStale;
  if (const int error = writable(*of)) return error;
  if (!allowed_attribute(text)) return forbidden(EOPNOTSUPP);
  return ::removexattr(descriptor_path(*of).c_str(), text.data()) == 0 ? 0 : errno;
}

}  // namespace bulkhead::fs
