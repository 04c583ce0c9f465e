#include "device/xenbus/store/requests.h"

#include <charconv>
#include <optional>
#include <utility>

#include "device/xenbus/store/path.h"
#include "device/xenbus/store/wire.h"

namespace bulkhead::device::xenbus::store {
namespace {

using namespace std::string_literals;
using Payload = std::string_view;

struct Request {
  Store& store;
  Session& session;
  u32 transaction;
  Payload payload;
};

std::unexpected<StoreError> no(StoreError error) { return std::unexpected{error}; }

// Takes one string and its zero byte off the front; nullopt: there is no zero byte.
std::optional<Payload> take_string(Payload& rest) {
  const std::size_t end = rest.find('\0');
  if (end == Payload::npos) return std::nullopt;
  const Payload text = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return text;
}

// The payload as one string and nothing behind it.
std::optional<Payload> only_string(Payload payload) {
  const std::optional<Payload> text = take_string(payload);
  return payload.empty() ? text : std::nullopt;
}

std::string terminated(std::string text) {
  text.push_back('\0');
  return text;
}

Reply<std::string> done(const Reply<>& reply) {
  if (!reply) return no(reply.error());
  return "OK\0"s;
}

// What most requests are: one path.
template <class Ask>
Reply<std::string> with_path(const Request& request, Ask ask) {
  const std::optional<Payload> path = only_string(request.payload);
  if (!path) return no(StoreError::kInvalid);
  return ask(*path);
}

Reply<std::string> read(const Request& request) {
  return with_path(request, [&](Payload path) { return request.session.read(request.transaction, path); });
}

std::string joined(const std::vector<std::string>& names) {
  std::string all;
  for (const std::string& name : names) all.append(name).push_back('\0');
  return all;
}

Reply<std::string> directory(const Request& request) {
  return with_path(request, [&](Payload path) -> Reply<std::string> {
    const Reply<Session::Listing> listing = request.session.list(request.transaction, path);
    if (!listing) return no(listing.error());
    return joined(listing->names);
  });
}

std::optional<u32> parse_number(Payload text) {
  u32 number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() ? std::optional{number} : std::nullopt;
}

// As many whole names as fit; an empty one says that these were the last.
Reply<std::string> directory_part(const Request& request) {
  Payload rest = request.payload;
  const std::optional<Payload> path = take_string(rest), offset_text = take_string(rest);
  const std::optional<u32> from = offset_text ? parse_number(*offset_text) : std::nullopt;
  if (!path || !from || !rest.empty()) return no(StoreError::kInvalid);
  const Reply<Session::Listing> listing = request.session.list(request.transaction, *path);
  if (!listing) return no(listing.error());
  std::string reply = terminated(std::to_string(listing->generation));
  const std::string all = joined(listing->names);
  for (std::size_t offset = *from; offset < all.size();) {
    const std::size_t length = all.find('\0', offset) + 1 - offset;
    if (reply.size() + length + 1 > XENSTORE_PAYLOAD_MAX) return reply;
    reply.append(all, offset, length);
    offset += length;
  }
  return terminated(std::move(reply));
}

Reply<std::string> write(const Request& request) {
  Payload value = request.payload;
  const std::optional<Payload> path = take_string(value);
  if (!path) return no(StoreError::kInvalid);
  return done(request.session.write(request.transaction, *path, value));
}

Reply<std::string> make_directory(const Request& request) {
  return with_path(request,
                   [&](Payload path) { return done(request.session.make_directory(request.transaction, path)); });
}

Reply<std::string> remove(const Request& request) {
  return with_path(request, [&](Payload path) { return done(request.session.remove(request.transaction, path)); });
}

Reply<std::string> get_permissions(const Request& request) {
  return with_path(request, [&](Payload path) -> Reply<std::string> {
    const Reply<Permissions> permissions = request.session.permissions(request.transaction, path);
    if (!permissions) return no(permissions.error());
    std::string reply;
    for (const Permission permission : *permissions) reply += terminated(format_permission(permission));
    return reply;
  });
}

Reply<std::string> set_permissions(const Request& request) {
  Payload rest = request.payload;
  const std::optional<Payload> path = take_string(rest);
  if (!path) return no(StoreError::kInvalid);
  Permissions permissions;
  while (const std::optional<Payload> text = take_string(rest)) {
    const std::optional<Permission> permission = parse_permission(*text);
    if (!permission) return no(StoreError::kInvalid);
    permissions.push_back(*permission);
  }
  return done(request.session.set_permissions(request.transaction, *path, permissions));
}

template <class Ask>
Reply<std::string> with_watch(const Request& request, Ask ask) {
  Payload rest = request.payload;
  const std::optional<Payload> path = take_string(rest), token = take_string(rest);
  if (!path || !token) return no(StoreError::kInvalid);
  return done(ask(*path, *token));
}

Reply<std::string> watch(const Request& request) {
  return with_watch(request, [&](Payload path, Payload token) { return request.session.watch(path, token); });
}

Reply<std::string> unwatch(const Request& request) {
  return with_watch(request, [&](Payload path, Payload token) { return request.session.unwatch(path, token); });
}

Reply<std::string> reset_watches(const Request& request) {
  request.session.reset();
  return done({});
}

Reply<std::string> transaction_start(const Request& request) {
  if (request.transaction != 0) return no(StoreError::kBusy);
  const Reply<u32> id = request.session.begin();
  if (!id) return no(id.error());
  return terminated(std::to_string(*id));
}

Reply<std::string> transaction_end(const Request& request) {
  const std::optional<Payload> how = only_string(request.payload);
  if (how != "T" && how != "F") return no(StoreError::kInvalid);
  return done(request.session.end(request.transaction, how == "T"));
}

Reply<std::string> domain_path(const Request& request) {
  const std::optional<Payload> text = only_string(request.payload);
  const std::optional<Domid> domain = text ? parse_domid(*text) : std::nullopt;
  if (!domain) return no(StoreError::kInvalid);
  return terminated(home_of(*domain));
}

Reply<std::string> is_domain_introduced(const Request& request) {
  const std::optional<Payload> text = only_string(request.payload);
  const std::optional<Domid> domain = text ? parse_domid(*text) : std::nullopt;
  if (!domain) return no(StoreError::kInvalid);
  return request.store.is_introduced(*domain) ? "T\0"s : "F\0"s;
}

Reply<std::string> dispatch(u32 type, const Request& request) {
  switch (type) {
    case XS_DIRECTORY:
      return directory(request);
    case XS_DIRECTORY_PART:
      return directory_part(request);
    case XS_READ:
      return read(request);
    case XS_WRITE:
      return write(request);
    case XS_MKDIR:
      return make_directory(request);
    case XS_RM:
      return remove(request);
    case XS_GET_PERMS:
      return get_permissions(request);
    case XS_SET_PERMS:
      return set_permissions(request);
    case XS_WATCH:
      return watch(request);
    case XS_UNWATCH:
      return unwatch(request);
    case XS_RESET_WATCHES:
      return reset_watches(request);
    case XS_TRANSACTION_START:
      return transaction_start(request);
    case XS_TRANSACTION_END:
      return transaction_end(request);
    case XS_GET_DOMAIN_PATH:
      return domain_path(request);
    case XS_IS_DOMAIN_INTRODUCED:
      return is_domain_introduced(request);
    case XS_CONTROL:
    case XS_INTRODUCE:
    case XS_RELEASE:
    case XS_RESUME:
    case XS_SET_TARGET:
      return no(StoreError::kAccess);  // domain 0's, and that one has no ring
    default:
      return no(StoreError::kUnknown);
  }
}

void count_error(Store& store, StoreError error) {
  store.count(Count::kErrors);
  if (error == StoreError::kAccess || error == StoreError::kNotPermitted) store.count(Count::kRefusedAccess);
  if (error == StoreError::kNoSpace || error == StoreError::kTooBig) store.count(Count::kRefusedLimit);
}

}  // namespace

Answer answer(Store& store, Session& session, u32 type, u32 transaction, std::string_view payload) {
  store.count(Count::kRequests);
  Reply<std::string> reply = dispatch(type, {store, session, transaction, payload});
  if (reply && reply->size() > XENSTORE_PAYLOAD_MAX) reply = no(StoreError::kTooBig);
  if (reply) return {type, std::move(*reply)};
  count_error(store, reply.error());
  return {XS_ERROR, terminated(std::string{error_name(reply.error())})};
}

}  // namespace bulkhead::device::xenbus::store
