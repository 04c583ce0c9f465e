#include "container/shim/events.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "github.com/containerd/containerd/api/events/task.pb.h"
#include "google/protobuf/any.pb.h"

namespace bulkhead::container {
namespace {

namespace fs = std::filesystem;

// A program in containerd's place, in a folder of its own.
class Publisher : public ::testing::Test {
 protected:
  Publisher() : folder_{make_folder()} {
    flags_.space = "k8s.io";
    flags_.address = "/run/c.sock";
    flags_.publish_program = (folder_ / "publish").string();
  }
  ~Publisher() override { fs::remove_all(folder_); }
  void program(const std::string& script) const {
    std::ofstream{folder_ / "publish"} << "#!/bin/sh\ncd " << folder_.string() << "\n" << script << "\n";
    ::chmod((folder_ / "publish").c_str(), 0755);
  }
  std::string text(const char* name) const {
    std::ifstream in{folder_ / name, std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  void publish_two() {
    Loop loop;
    Events events{loop, flags_, ""};
    containerd::events::TaskOOM event;
    event.set_container_id("c1");
    events.publish("/tasks/oom", "containerd.events.TaskOOM", event);
    event.set_container_id("c2");
    events.publish("/tasks/oom", "containerd.events.TaskOOM", event);
    events.finish(60'000'000'000, [&] { loop.stop(); });
    loop.run();
  }
  static fs::path make_folder() {
    std::string name = fs::temp_directory_path() / "bulkhead-events-XXXXXX";
    return ::mkdtemp(name.data());
  }

  fs::path folder_;
  ShimFlags flags_;
};

TEST_F(Publisher, IsToldByItsOwnProgramWhereThereIsNoSocket) {
  program("echo \"$@\" >>arguments; cat >event");
  publish_two();
  const std::string line = "--address /run/c.sock publish --topic /tasks/oom --namespace k8s.io\n";
  EXPECT_EQ(text("arguments"), line + line);
  google::protobuf::Any any;
  containerd::events::TaskOOM event;
  ASSERT_TRUE(any.ParseFromString(text("event")));
  EXPECT_EQ(any.type_url(), "containerd.events.TaskOOM");
  ASSERT_TRUE(event.ParseFromString(any.value()));
  EXPECT_EQ(event.container_id(), "c2");
}

TEST_F(Publisher, IsToldAgainWhenItDidNotListen) {
  program("echo try >>tries; [ $(wc -l <tries) -ge 2 ]");
  publish_two();
  EXPECT_EQ(text("tries"), "try\ntry\ntry\n");
}

TEST_F(Publisher, ThatIsNotThereCostsTheEventOnly) {
  flags_.publish_program = (folder_ / "none").string();
  publish_two();
  EXPECT_TRUE(fs::is_empty(folder_));
}

}  // namespace
}  // namespace bulkhead::container
