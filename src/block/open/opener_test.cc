#include "block/open/opener.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

namespace bulkhead::block {
namespace {

// A format for these tests: "CHAIN" and the name of the image below, padded to a sector.
bool is_chain(std::span<const std::byte> head) {
  constexpr std::string_view kMagic = "CHAIN";
  return head.size() >= kMagic.size() && std::memcmp(head.data(), kMagic.data(), kMagic.size()) == 0;
}

struct ChainNode final : Node {
  ChainNode(NodePtr file, NodePtr below) : Node{file->executor(), file->name(), DiskAccess::kReadOnly} {
    set_size(512);
    add_child(ChildRole::kFile, std::move(file));
    if (below != nullptr) add_child(ChildRole::kBacking, std::move(below));
  }
  std::string_view driver() const override { return "chain"; }
  Task<IoStatus> do_read(u64, Buffers) override { co_return IoStatus::kIoError; }
  Task<IoStatus> do_write(u64, Buffers, WriteFlags) override { co_return IoStatus::kIoError; }
  Task<IoStatus> do_flush() override { co_return IoStatus::kOk; }
};

Task<Result<NodePtr>> open_chain(Opener& opener, NodePtr file, OpenRequest request) {
  std::array<char, 512> text;
  const IoStatus status = co_await file->read_bytes(0, std::as_writable_bytes(std::span{text}));
  if (status != IoStatus::kOk) co_return fail("{}", text_of(status));
  NodePtr below;
  if (text[5] != '\0') {
    OpenRequest next;
    next.path = &text[5];
    next.ancestors = std::move(request.ancestors);
    BH_CO_ASSIGN(below, co_await opener.open(std::move(next)));
  }
  NodePtr node = std::make_shared<ChainNode>(std::move(file), std::move(below));
  co_return node;
}

constexpr Format kFormats[] = {{"chain", is_chain, open_chain}};

struct OpenerTest : ::testing::Test {
  OpenerTest() {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directory(folder);
  }
  ~OpenerTest() override { std::filesystem::remove_all(folder); }
  std::string path(const std::string& name) const { return (folder / name).string(); }
  void image(const std::string& name, const std::string& below) const {
    std::string content = "CHAIN" + (below.empty() ? "" : path(below));
    content.resize(512);
    std::ofstream{path(name)} << content;
  }
  Result<NodePtr> open(const std::string& name, std::string format = {}, DiskAccess access = DiskAccess::kReadOnly) {
    OpenRequest request;
    request.path = path(name);
    request.format = std::move(format);
    request.access = access;
    return executor->run(opener.open(std::move(request)));
  }
  std::string refusal(const std::string& name, std::string format = {}) {
    auto node = open(name, std::move(format));
    return node ? "" : node.error().message;
  }
  const std::filesystem::path folder = std::filesystem::current_path() / fmt::format("bulkhead-opener-{}", ::getpid());
  std::unique_ptr<Executor> executor = std::move(*Executor::create());
  Opener opener{*executor, kFormats};
};

TEST_F(OpenerTest, AChainIsOpenedToItsEnd) {
  image("a", "b");
  image("b", "c");
  std::ofstream{path("c")} << std::string(1024, 'x');
  const auto top = open("a");
  ASSERT_TRUE(top.has_value()) << top.error().message;
  EXPECT_EQ((*top)->driver(), "chain");
  const Node* const last = (*top)->child(ChildRole::kBacking)->child(ChildRole::kBacking);
  EXPECT_EQ(last->driver(), "file");
  EXPECT_EQ(last->size(), 1024u);
  EXPECT_EQ((*top)->child(ChildRole::kTarget), nullptr);
  EXPECT_EQ(executor->run(close_graph(*top)), IoStatus::kOk);
}

TEST_F(OpenerTest, TheFormatThatWasNamedIsTaken) {
  image("a", "missing");
  const auto raw = open("a", "raw");
  ASSERT_TRUE(raw.has_value());
  EXPECT_EQ((*raw)->driver(), "file");
  EXPECT_NE(refusal("a", "tar").find("no format 'tar'"), std::string::npos);
}

TEST_F(OpenerTest, ChainsThatComeBackToThemselvesAreRefused) {
  image("a", "b");
  image("b", "c");
  image("c", "a");
  EXPECT_NE(refusal("a").find("its own backing image"), std::string::npos);
  image("self", "self");
  EXPECT_NE(refusal("self").find("its own backing image"), std::string::npos);
  std::filesystem::create_hard_link(path("self"), path("other-name"));
  image("self", "other-name");
  EXPECT_NE(refusal("self").find("its own backing image"), std::string::npos);
}

TEST_F(OpenerTest, ChainsThatAreTooDeepAreRefused) {
  for (std::size_t i = 0; i <= Opener::kMaxDepth; ++i)
    image(std::to_string(i), i == Opener::kMaxDepth ? "" : std::to_string(i + 1));
  EXPECT_TRUE(open("1").has_value());
  EXPECT_NE(refusal("0").find("such a chain is refused"), std::string::npos);
}

TEST_F(OpenerTest, WhatIsMissingBelowIsNamed) {
  image("a", "gone");
  EXPECT_NE(refusal("a").find("gone"), std::string::npos);
  std::ofstream{path("empty")};
  EXPECT_NE(refusal("empty").find("is empty"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead::block
