// The guest's end of a xenstore ring: sends requests whole or in pieces, sorts replies from watch events.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/ints.h"
#include "device/xenbus/store/wire.h"

namespace bulkhead::device::xenbus::testing {

// One thread. `step` lets the other end work, or waits for it: called whenever we have to wait. `patience` bounds how
// often in a row it is called for nothing: 0 is for ever.
class XenstoreClient {
 public:
  struct Message {
    u32 type = XS_INVALID, request = 0, transaction = 0;
    std::string payload;
  };
  struct Event {
    std::string path, token;
    bool operator==(const Event&) const = default;
  };

  explicit XenstoreClient(std::byte* page, std::function<void()> step, u64 patience = 0)
      : page_{*reinterpret_cast<xenstore_domain_interface*>(page)}, step_{std::move(step)}, patience_{patience} {}

  // --- a well-behaved guest ---
  // Sends and waits for the reply with our request number; XS_INVALID when out of patience.
  Message ask(u32 type, std::string_view payload, u32 transaction = 0) {
    const u32 request = send(type, payload, transaction);
    for (u64 tries = 0; patience_ == 0 || tries < patience_; ++tries) {
      collect();
      for (auto reply = replies_.begin(); reply != replies_.end(); ++reply)
        if (reply->request == request) {
          Message found = std::move(*reply);
          replies_.erase(reply);
          return found;
        }
      step_();
    }
    return {};
  }
  // The reply's payload, without the last zero byte of one that has any; an error's is its name: "ENOENT".
  std::string text(u32 type, std::string_view payload, u32 transaction = 0) {
    std::string reply = ask(type, payload, transaction).payload;
    if (reply.ends_with('\0')) reply.pop_back();
    return reply;
  }
  static std::string string(std::string_view text) { return std::string{text} + '\0'; }
  std::string read(std::string_view path, u32 transaction = 0) { return text(XS_READ, string(path), transaction); }
  std::string write(std::string_view path, std::string_view value, u32 transaction = 0) {
    return text(XS_WRITE, string(path).append(value), transaction);
  }
  std::string watch(std::string_view path, std::string_view token) {
    return text(XS_WATCH, string(path) + string(token));
  }
  std::string unwatch(std::string_view path, std::string_view token) {
    return text(XS_UNWATCH, string(path) + string(token));
  }
  u32 begin() { return static_cast<u32>(std::strtoul(text(XS_TRANSACTION_START, string("")).c_str(), nullptr, 10)); }
  std::string end(u32 transaction, bool commit = true) {
    return text(XS_TRANSACTION_END, string(commit ? "T" : "F"), transaction);
  }
  // The next watch event, if there is any by now.
  std::optional<Event> event() {
    collect();
    if (events_.empty()) return std::nullopt;
    Event first = std::move(events_.front());
    events_.pop_front();
    return first;
  }
  Event wait_for_event() {
    for (u64 tries = 0; patience_ == 0 || tries < patience_; ++tries) {
      if (std::optional<Event> found = event()) return *found;
      step_();
    }
    return {};
  }

  // --- any guest ---
  // Puts a whole message into the ring, waiting for room. Returns its request number.
  u32 send(u32 type, std::string_view payload, u32 transaction = 0) {
    const u32 request = ++last_request_;
    send_bytes(message(type, request, transaction, payload));
    return request;
  }
  static std::string message(u32 type, u32 request, u32 transaction, std::string_view payload) {
    const xsd_sockmsg header{type, request, transaction, static_cast<u32>(payload.size())};
    std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
    return bytes.append(payload);
  }
  bool send_bytes(std::string_view bytes) {
    for (u64 idle = 0; !bytes.empty(); ++idle) {
      if (patience_ != 0 && idle > patience_) return false;
      const std::size_t put = put_bytes(bytes);
      bytes.remove_prefix(put);
      if (put > 0) idle = 0;
      step_();
    }
    return true;
  }
  std::size_t room() const {
    const u32 used = page_.req_prod - load(page_.req_cons);
    return used > XENSTORE_RING_SIZE ? 0 : XENSTORE_RING_SIZE - used;
  }
  // As many as there is room for; nobody is told.
  std::size_t put_bytes(std::string_view bytes) {
    const u32 producer = page_.req_prod;
    const std::size_t count = std::min(room(), bytes.size());
    for (std::size_t i = 0; i < count; ++i) page_.req[MASK_XENSTORE_IDX(producer + i)] = bytes[i];
    store(page_.req_prod, producer + static_cast<u32>(count));
    return count;
  }
  // Takes what is in the ring; whole messages go to replies and events. Returns the number of bytes.
  std::size_t collect() {
    const u32 consumer = page_.rsp_cons, available = load(page_.rsp_prod) - consumer;
    for (u32 i = 0; i < available; ++i) partial_ += page_.rsp[MASK_XENSTORE_IDX(consumer + i)];
    store(page_.rsp_cons, consumer + available);
    while (take_message()) {
    }
    return available;
  }
  // Asks for a new connection and waits for it. Forgets what was under way.
  void reconnect() {
    store(page_.connection, XENSTORE_RECONNECT);
    while (load(page_.connection) != XENSTORE_CONNECTED) step_();
    partial_.clear();
    replies_.clear();
    events_.clear();
  }
  u32 error() const { return load(page_.error); }
  std::deque<Message>& replies() { return replies_; }
  xenstore_domain_interface& page() { return page_; }

 private:
  static u32 load(const u32& field) {
    return std::atomic_ref<u32>{const_cast<u32&>(field)}.load(std::memory_order_acquire);
  }
  static void store(u32& field, u32 value) { std::atomic_ref<u32>{field}.store(value, std::memory_order_release); }

  bool take_message() {
    xsd_sockmsg header;
    if (partial_.size() < sizeof(header)) return false;
    std::memcpy(&header, partial_.data(), sizeof(header));
    if (partial_.size() < sizeof(header) + header.len) return false;
    std::string payload = partial_.substr(sizeof(header), header.len);
    partial_.erase(0, sizeof(header) + header.len);
    if (header.type == XS_WATCH_EVENT) {
      const std::size_t middle = payload.find('\0');
      events_.push_back({payload.substr(0, middle), payload.substr(middle + 1, payload.size() - middle - 2)});
    } else {
      replies_.push_back({header.type, header.req_id, header.tx_id, std::move(payload)});
    }
    return true;
  }

  xenstore_domain_interface& page_;
  const std::function<void()> step_;
  const u64 patience_;
  u32 last_request_ = 0;
  std::string partial_;
  std::deque<Message> replies_;
  std::deque<Event> events_;
};

}  // namespace bulkhead::device::xenbus::testing
