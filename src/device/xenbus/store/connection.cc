#include "device/xenbus/store/connection.h"

#include <cstring>
#include <utility>

namespace bulkhead::device::xenbus::store {
namespace {

constexpr unsigned kStepsAtOnce = 64;

std::string message(u32 type, u32 request, u32 transaction, std::string_view payload) {
  const xsd_sockmsg header{type, request, transaction, static_cast<u32>(payload.size())};
  std::string bytes(sizeof(header), '\0');
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes.append(payload);
}

std::string event_message(const EventQueue::Event& event) {
  const auto payload = [&](std::string_view path) { return std::string{path} + '\0' + event.first->token + '\0'; };
  std::string text = payload(event.second);
  // The watched path fits for certain: it came in a request with the same token.
  if (text.size() > XENSTORE_PAYLOAD_MAX) text = payload(event.first->seen(event.first->path));
  return message(XS_WATCH_EVENT, 0, 0, text);
}

}  // namespace

Connection::Connection(Store& store, Domid domain, std::byte* page, std::function<void()> wake)
    : store_{store}, ring_{page}, wake_{std::move(wake)}, events_{store.limits().events_kept} {
  session_ = store.connect(domain, *this);
}

void Connection::watch_event(const WatchRef& watch, std::string_view path) {
  switch (events_.push(watch, path)) {
    case EventQueue::Pushed::kAdded:
      store_.count(Count::kEvents);
      break;
    case EventQueue::Pushed::kMerged:
      store_.count(Count::kEventsMerged);
      break;
    case EventQueue::Pushed::kCollapsed:
      store_.count(Count::kEventsCollapsed);
      break;
  }
  wake_();
}

void Connection::watch_removed(const WatchRef& watch) { events_.drop(watch); }

Connection::Pumped Connection::pump() {
  Pumped pumped;
  if (ring_.reconnect_requested()) {
    forget_all();
    closed_ = false;
    ring_.reset();
    store_.count(Count::kReconnections);
    pumped.notify = true;
  }
  for (unsigned step = 0; !closed_; ++step) {
    if (step == kStepsAtOnce) {
      pumped.more = true;
      break;
    }
    const Step out = send(), in = out == Step::kBadRing ? out : receive();
    pumped.notify |= out != Step::kWaits || in != Step::kWaits;
    if (in == Step::kBadRing) close(XENSTORE_ERROR_RINGIDX);
    if (out == Step::kWaits && in == Step::kWaits) break;
  }
  return pumped;
}

bool Connection::next_to_send() {
  if (sent_ < sending_.size()) return true;
  sent_ = 0;
  sending_.clear();
  if (!replies_.empty()) {
    sending_ = std::move(replies_.front());
    replies_.pop_front();
  } else if (const std::optional<EventQueue::Event> event = events_.pop()) {
    sending_ = event_message(*event);
  }
  return !sending_.empty();
}

Connection::Step Connection::send() {
  if (!next_to_send()) return Step::kWaits;
  const auto moved = ring_.write(std::as_bytes(std::span{sending_}).subspan(sent_));
  if (!moved) return Step::kBadRing;
  sent_ += *moved;
  return *moved > 0 ? Step::kMoved : Step::kWaits;
}

bool Connection::may_receive() {
  const bool full = replies_.size() >= store_.limits().replies || events_.size() >= store_.limits().events;
  if (full && !stalled_) store_.count(Count::kStalls);
  stalled_ = full;
  return !full;
}

Connection::Step Connection::receive() {
  if (!may_receive()) return Step::kWaits;
  xsd_sockmsg header{};
  std::size_t wanted = sizeof(header);
  if (received_ >= sizeof(header)) {
    std::memcpy(&header, request_.data(), sizeof(header));
    wanted += header.len;
  }
  const auto moved = ring_.read(std::span{request_}.subspan(received_, wanted - received_));
  if (!moved) return Step::kBadRing;
  received_ += *moved;
  if (received_ < wanted) return *moved > 0 ? Step::kMoved : Step::kWaits;
  if (wanted == sizeof(header)) {
    std::memcpy(&header, request_.data(), sizeof(header));
    if (header.len > XENSTORE_PAYLOAD_MAX) {
      close(XENSTORE_ERROR_PROTO);
      return Step::kMoved;
    }
    if (header.len > 0) return Step::kMoved;
  }
  finish_request();
  return Step::kMoved;
}

void Connection::finish_request() {
  xsd_sockmsg header;
  std::memcpy(&header, request_.data(), sizeof(header));
  const std::string_view payload{reinterpret_cast<const char*>(request_.data()) + sizeof(header), header.len};
  const Answer reply = answer(store_, *session_, header.type, header.tx_id, payload);
  replies_.push_back(message(reply.type, header.req_id, header.tx_id, reply.payload));
  received_ = 0;
}

void Connection::forget_all() {
  session_->reset();
  events_.clear();
  replies_.clear();
  sending_.clear();
  received_ = sent_ = 0;
  stalled_ = false;
}

void Connection::close(u32 error) {
  forget_all();
  closed_ = true;
  ring_.report_error(error);
  store_.count(Count::kProtocolErrors);
}

}  // namespace bulkhead::device::xenbus::store
