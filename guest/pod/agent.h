// The agent's loop: calls in, answers out, the containers' streams and ends.
#pragma once
#include <poll.h>

#include "guest/pod/box.h"

namespace bulkhead::pod {

class Agent {
 public:
  Agent();
  void run();  // until the shim has gone

 private:
  using Name = std::pair<std::string, std::string>;  // container, exec

  // ---- calls (calls.cc). Each answers now or remembers the call's number.
  void dispatch(const ttrpc::Frame& frame);
  template <class Message>
  void call(CallNumber number, const std::string& payload, void (Agent::*method)(CallNumber, const Message&));
  void hello(CallNumber number, const HelloRequest& request);
  void create(CallNumber number, const Container& request);
  void start(CallNumber number, const ProcessName& request);
  void exec(CallNumber number, const ExecRequest& request);
  void signal(CallNumber number, const SignalRequest& request);
  void wait(CallNumber number, const ProcessName& request);
  void read(CallNumber number, const ReadRequest& request);
  void write(CallNumber number, const WriteRequest& request);
  void close_input(CallNumber number, const ProcessName& request);
  void resize(CallNumber number, const ResizeRequest& request);
  void pids(CallNumber number, const ProcessName& request);
  void pause(CallNumber number, const ProcessName& request);
  void resume(CallNumber number, const ProcessName& request);
  void update(CallNumber number, const UpdateRequest& request);
  void statistics(CallNumber number, const ProcessName& request);
  void remove(CallNumber number, const ProcessName& request);
  void next_event(CallNumber number, const Empty&);
  void settle(CallNumber number, const Empty&);

  void answer(CallNumber number, const google::protobuf::MessageLite& message);
  void done(CallNumber number) { answer(number, Empty{}); }
  void refuse(CallNumber number, Code code, const std::string& text);
  Box* find_box(CallNumber number, const std::string& name);  // nullptr: refused already
  Running* find(CallNumber number, const ProcessName& name);  // the same
  bool joined(CallNumber number, const Container& request, int& pid, Namespaces& out);
  void freeze(CallNumber number, const std::string& container, bool frozen);

  // ---- processes (agent.cc)
  void look_at_control(Box& box, Running& process);
  void child_says(Box& box, Running& process, const ChildReport& report, int fd);
  void prepared(Box& box, Running& process);
  void failed(Box& box, Running& process, const std::string& text);
  void pass_input(Running& process);
  void pass_output(Running& process, Output& output);
  void end_output(Output& output);
  void end_input(Running& process);
  void reap();
  void ended(Box& box, Running& process, int status);
  void look_for_oom(Box& box);
  void tell(const Event& event);
  void forget(const std::string& container);

  void read_calls();
  void write_answers();
  void step();

  ttrpc::FrameReader reader_;
  std::string outgoing_;
  std::map<std::string, std::unique_ptr<Box>> boxes_;
  std::deque<Event> events_;
  CallNumber event_call_ = 0;
  Fd children_, oom_;
  bool greeted_ = false, over_ = false;
};

}  // namespace bulkhead::pod
