// SPDX-License-Identifier: Apache-2.0
#include "pipeline/yaml_tree.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "base/utf8.h"
#include "fmt/format.h"
#include "pipeline/yaml_repair.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/exceptions.h"
#include "yaml-cpp/parser.h"

namespace millstream {
namespace {

constexpr std::size_t kMaxBytes = 4 << 20;
constexpr std::size_t kMaxNodes = 200'000;  // aliases expanded
constexpr std::size_t kMaxDepth = 100;

/// What stops the reading of a document.
struct YamlFailure {
  int line = 0;
  std::string path;
  std::string message;
  bool maybe_expression = false;  // what an unquoted {{ }} looks like to YAML
};

std::size_t CountNodes(const YamlNode& node) {
  std::size_t count = 1;
  for (const YamlNode& child : node.children) count += CountNodes(child);
  return count;
}

std::size_t DepthOf(const YamlNode& node) {
  std::size_t depth = 0;
  for (const YamlNode& child : node.children) depth = std::max(depth, DepthOf(child));
  return depth + 1;
}

/// Builds the tree from yaml-cpp's events. Throws YamlFailure.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::vector<std::string_view>& lines, const YamlMistake& report)
      : lines_(lines), report_(report) {}

  int start_line() const { return start_line_; }
  YamlNode TakeRoot() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override { start_line_ = mark.line + 1; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    YamlNode node = NodeAt(mark);
    node.plain = true;
    node.text = NullText(mark);
    Finish(std::move(node), anchor);
  }
  void OnScalar(
      const YAML::Mark& mark,
      const std::string& tag,
      YAML::anchor_t anchor,
      const std::string& value
  ) override {
    YamlNode node = NodeAt(mark);
    node.kind = YamlNode::Kind::kScalar;
    node.text = value;
    node.plain = tag == "?";
    if (!node.plain) CheckClosed(mark);
    Finish(std::move(node), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      throw YamlFailure{mark.line + 1, Path(), "the alias stands within what it refers to"};
    }
    if (frames_.size() + DepthOf(found->second) > kMaxDepth) FailDepth(mark.line + 1);
    YamlNode node = found->second;
    node.line = mark.line + 1;
    num_nodes_ += CountNodes(node);
    Finish(std::move(node), YAML::NullAnchor);
  }
  void OnSequenceStart(
      const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value
  ) override {
    Open(mark, YamlNode::Kind::kList, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(
      const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, YAML::EmitterStyle::value
  ) override {
    Open(mark, YamlNode::Kind::kMap, anchor);
  }
  void OnMapEnd() override {
    Merge(frames_.back().node);
    DropDuplicates(frames_.back().node);
    Close();
  }

 private:
  struct Frame {
    YamlNode node;
    YAML::anchor_t anchor = YAML::NullAnchor;
    std::optional<YamlNode> key;  // of the entry whose value comes next
  };

  static YamlNode NodeAt(const YAML::Mark& mark) {
    YamlNode node;
    node.line = mark.line + 1;
    return node;
  }

  // yaml-cpp does not tell how a null is written.
  std::string NullText(const YAML::Mark& mark) const {
    if (mark.line < 0 || static_cast<std::size_t>(mark.line) >= lines_.size()) return {};
    const std::string_view line = lines_[static_cast<std::size_t>(mark.line)];
    if (mark.column < 0 || static_cast<std::size_t>(mark.column) >= line.size()) return {};
    const std::string_view rest = line.substr(static_cast<std::size_t>(mark.column));
    for (const std::string_view word : {"~", "null", "Null", "NULL"}) {
      if (rest.starts_with(word)) return std::string(word);
    }
    return {};
  }

  // yaml-cpp takes the end of the file for a missing quote.
  void CheckClosed(const YAML::Mark& mark) const {
    std::size_t at = static_cast<std::size_t>(mark.column);
    const std::string_view first = lines_[static_cast<std::size_t>(mark.line)];
    const char quote = at < first.size() ? first[at] : '\0';
    if (quote != '"' && quote != '\'') return;  // a block scalar, or a tag before it
    ++at;
    for (auto line = static_cast<std::size_t>(mark.line); line < lines_.size(); ++line, at = 0) {
      for (; at < lines_[line].size(); ++at) {
        if (lines_[line][at] == quote) return;
        if (quote == '"' && lines_[line][at] == '\\') ++at;
      }
    }
    throw YamlFailure{mark.line + 1, Path(), fmt::format("the quote {} is not closed", quote)};
  }

  std::string Path() const {
    std::string path;
    for (const Frame& frame : frames_) {
      if (frame.node.IsList()) {
        path = PathOf(path, frame.node.children.size());
      } else if (frame.key) {
        path = PathOf(path, frame.key->text);
      }
    }
    return path;
  }

  void FailDepth(int line) const {
    throw YamlFailure{line, {}, "nests deeper than " + std::to_string(kMaxDepth)};
  }

  void Open(const YAML::Mark& mark, YamlNode::Kind kind, YAML::anchor_t anchor) {
    if (!frames_.empty() && frames_.back().node.IsMap() && !frames_.back().key) {
      throw YamlFailure{mark.line + 1, Path(), "a key must be a plain name", true};
    }
    if (frames_.size() >= kMaxDepth) FailDepth(mark.line + 1);
    YamlNode node = NodeAt(mark);
    node.kind = kind;
    frames_.push_back({std::move(node), anchor, std::nullopt});
  }

  void Close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    Finish(std::move(frame.node), frame.anchor);
  }

  void Finish(YamlNode node, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      num_nodes_ += CountNodes(node);
      anchors_[anchor] = node;
    }
    if (++num_nodes_ > kMaxNodes) {
      throw YamlFailure{node.line, {}, "holds too many values, aliases expanded"};
    }
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.IsMap()) {
      if (!frame.key) {
        if (node.IsMap() || node.IsList()) {
          throw YamlFailure{node.line, Path(), "a key must be a plain name"};
        }
        frame.key = std::move(node);
        return;
      }
      node.key = std::move(frame.key->text);
      node.line = frame.key->line;
      frame.key.reset();
    }
    frame.node.children.push_back(std::move(node));
  }

  // `<<: *base` adds the entries of `base` that the map does not have itself.
  void Merge(YamlNode& map) {
    const auto merge = std::find_if(
        map.children.begin(), map.children.end(), [](const YamlNode& n) { return n.key == "<<"; }
    );
    if (merge == map.children.end()) return;
    YamlNode source = std::move(*merge);
    map.children.erase(merge);
    if (source.IsMap()) {
      YamlNode copy = std::move(source);
      source = YamlNode{};
      source.kind = YamlNode::Kind::kList;
      source.line = copy.line;
      source.children.push_back(std::move(copy));
    }
    const bool ok =
        source.IsList() &&
        std::all_of(source.children.begin(), source.children.end(), [](const YamlNode& n) {
          return n.IsMap();
        });
    if (!ok) {
      report_(source.line, PathOf(Path(), "<<"), "must be an alias of a mapping, such as *base");
      return;
    }
    std::set<std::string> own;
    for (const YamlNode& entry : map.children) own.insert(entry.key);
    for (YamlNode& base : source.children) {
      for (YamlNode& entry : base.children) {
        if (own.insert(entry.key).second) map.children.push_back(std::move(entry));
      }
    }
  }

  void DropDuplicates(YamlNode& map) {
    std::map<std::string, int> lines;
    std::erase_if(map.children, [&](const YamlNode& entry) {
      const auto [first, is_new] = lines.emplace(entry.key, entry.line);
      if (is_new) return false;
      report_(
          entry.line,
          PathOf(Path(), entry.key),
          "stands twice; the first is on line " + std::to_string(first->second)
      );
      return true;
    });
  }

  const std::vector<std::string_view>& lines_;
  const YamlMistake& report_;
  YamlNode root_;
  int start_line_ = 1;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, YamlNode> anchors_;
  std::size_t num_nodes_ = 0;
};

/// Reads `text` once. On failure says why.
std::optional<YamlFailure> TryRead(
    const std::string& text, const YamlMistake& report, std::optional<YamlNode>* root
) {
  const std::vector<std::string_view> lines = SplitLines(text);
  std::istringstream stream(text);
  try {
    YAML::Parser parser(stream);
    TreeBuilder builder(lines, report);
    if (!parser.HandleNextDocument(builder)) return YamlFailure{1, {}, "the file is empty"};
    *root = builder.TakeRoot();
    const YamlMistake ignore = [](int, const std::string&, const std::string&) {};
    TreeBuilder second(lines, ignore);
    if (parser.HandleNextDocument(second)) {
      return YamlFailure{
          second.start_line(), {}, "holds more than one YAML document: take the `---` lines out"
      };
    }
    return std::nullopt;
  } catch (const YamlFailure& failure) {
    return failure;
  } catch (const YAML::Exception& error) {
    const int line = error.mark.line < 0 ? 1 : error.mark.line + 1;
    return YamlFailure{
        line, {}, ExplainYamlError(error.msg, lines, line, error.mark.column + 1), true
    };
  }
}

/// Says what is wrong with the bytes, before YAML is asked.
std::optional<YamlFailure> CheckBytes(const std::string& text) {
  if (text.size() > kMaxBytes) return YamlFailure{1, {}, "is larger than 4 MiB"};
  int number = 0;
  for (const std::string_view line : SplitLines(text)) {
    ++number;
    if (!IsValidUtf8(line)) return YamlFailure{number, {}, "is not valid UTF-8"};
    if (line.find('\0') != std::string_view::npos) {
      return YamlFailure{number, {}, "holds a NUL byte"};
    }
  }
  return std::nullopt;
}

}  // namespace

const YamlNode* YamlNode::Find(std::string_view name) const {
  for (const YamlNode& child : children) {
    if (child.key == name) return &child;
  }
  return nullptr;
}

YamlNode* YamlNode::Find(std::string_view name) {
  return const_cast<YamlNode*>(std::as_const(*this).Find(name));
}

std::optional<YamlNode> ReadYaml(std::string text, const YamlMistake& report) {
  if (const auto bad = CheckBytes(text)) {
    report(bad->line, {}, bad->message);
    return std::nullopt;
  }
  constexpr int kMaxRepairs = 50;
  for (int repairs = 0;; ++repairs) {
    std::vector<std::pair<int, std::pair<std::string, std::string>>> found;
    std::optional<YamlNode> root;
    const auto failure = TryRead(
        text,
        [&](int line, const std::string& path, const std::string& message) {
          found.push_back({line, {path, message}});
        },
        &root
    );
    const bool may_repair = failure && failure->maybe_expression && repairs < kMaxRepairs;
    if (const auto quoted = may_repair ? QuoteExpression(text, failure->line) : std::nullopt) {
      report(quoted->line, failure->path, "put quotes around the expression: " + quoted->text);
      continue;
    }
    for (const auto& [line, rest] : found) report(line, rest.first, rest.second);
    if (failure) report(failure->line, failure->path, failure->message);
    return failure ? std::nullopt : std::move(root);
  }
}

std::string PathOf(std::string_view path, std::string_view key) {
  return path.empty() ? std::string(key) : std::string(path) + "." + std::string(key);
}

std::string PathOf(std::string_view path, std::size_t index) {
  return std::string(path) + "[" + std::to_string(index) + "]";
}

}  // namespace millstream
