#include "views/pages/SchemeFields.h"

namespace qb::views {
namespace {

QString tr(const char* text) { return FieldGroup::tr(text); }

}  // namespace

QuantSpec defaultSpec(SpecRole role) {
  if (role == SpecRole::Cache) return default_cache_spec();
  QuantSpec spec;
  if (role == SpecRole::Activations) {
    spec.type.bits = 8;
    spec.granularity = Granularity::token;
  }
  spec.scale_type_open = role == SpecRole::Weights;
  return spec;
}

void addSpecFields(FieldGroup& group, const QString& key, SpecRole role, SpecAccess access) {
  const auto at = [access](const Recipe& recipe) -> const QuantSpec* { return access(const_cast<Recipe&>(recipe)); };
  using Test = std::function<bool(const QuantSpec&)>;
  const auto when = [at](Test test) -> RecipeTest {
    return [at, test](const Recipe& recipe) {
      const QuantSpec* spec = at(recipe);
      return spec && test(*spec);
    };
  };
  const auto get = [at](auto member) { return [at, member](const Recipe& r) { const auto* s = at(r); return s ? s->*member : std::decay_t<decltype(s->*member)>{}; }; };
  const auto set = [access](auto member) { return [access, member](Recipe& r, auto v) { if (auto* s = access(r)) s->*member = std::decay_t<decltype(s->*member)>(v); }; };
  // A storage type fixes all that these fields say.
  const auto integers = [](const QuantSpec& s) { return s.storage == Storage::none && s.type.kind == NumberType::Kind::integer; };
  const auto always = [](const QuantSpec& s) { return s.storage == Storage::none; };
  QStringList types{"int8", "int6", "int5", "int4", "int3", "int2", "e4m3", "e5m2", "e3m2", "e2m1"};
  const auto ofRole = [role](Storage storage) { return role == SpecRole::Weights || (role == SpecRole::Activations && activation_misfit(input_spec_of(storage), spec_of(storage).group_size).empty()); };
  for (const StorageInfo& info : storage_types())
    if (ofRole(info.storage)) types.append(QString::fromUtf8(info.name));

  group.choice({key + QStringLiteral(".type"), tr("Number type"), tr("Integers of 1 to 8 bits, floats written eXmY: exponent and mantissa bits; or a file format's type, which fixes the rest."), {},
                when([](const QuantSpec&) { return true; })},
               types, {},
               [at](const Recipe& r) { const auto* s = at(r); return s ? QString::fromStdString(type_text(*s)) : QString(); },
               [access, role, ofRole](Recipe& r, const QString& v) {
                 if (const auto storage = parse_storage(v.toStdString()); storage && ofRole(*storage)) {
                   if (auto* s = access(r)) *s = role == SpecRole::Weights ? spec_of(*storage) : input_spec_of(*storage);
                   return true;
                 }
                 const auto type = NumberType::parse(v.toStdString());
                 if (!type) return false;
                 if (auto* s = access(r)) {
                   if (s->storage != Storage::none) *s = defaultSpec(role);  // what the type before fixed
                   s->type = *type;
                   if (type->kind == NumberType::Kind::floating) s->symmetric = true;
                 }
                 return true;
               },
               true);
  group.boolean({key + QStringLiteral(".symmetric"), tr("Symmetric"), tr("The range is centred on zero, so that no zero point is stored."), {}, when(integers)},
                get(&QuantSpec::symmetric), set(&QuantSpec::symmetric));
  QStringList values{"tensor", "channel", "group", "block", "token", "head"};
  QStringList titles{tr("One per tensor"), tr("One per output channel"), tr("One per group of inputs"), tr("One per block"), tr("One per token"), tr("One per head")};
  if (role == SpecRole::Weights) {
    values.removeAt(4);
    titles.removeAt(4);
  } else {
    values = QStringList{"tensor", "token", "group", "head"};
    titles = QStringList{tr("One per tensor"), tr("One per token"), tr("One per group of channels"), tr("One per head")};
  }
  const QString shares = role == SpecRole::Weights ? tr("How many weights share one scale.")
                         : role == SpecRole::Cache ? tr("How many values share one scale: of each token one for all heads, one a head or one a group of its channels; fixed ranges are one for all or one a head.")
                                                   : tr("How many inputs share one scale; ranges of the calibration text (Dynamic off) have one per tensor.");
  group.choice({key + QStringLiteral(".granularity"), tr("Scales"), shares, {}, when(always)}, values, titles,
               [at](const Recipe& r) { const auto* s = at(r); return s ? QString::fromStdString(to_text(s->granularity)) : QString(); },
               [access, role](Recipe& r, const QString& v) {
                 const auto granularity = parse_granularity(v.toStdString());
                 if (auto* s = access(r); s && granularity) {
                   s->granularity = *granularity;
                   if (role == SpecRole::Activations && *granularity != Granularity::tensor) s->dynamic = true;
                   if (role == SpecRole::Cache && *granularity != Granularity::head) s->dynamic = *granularity != Granularity::tensor;  // of the calibration text are those of a tensor
                 }
                 return granularity.has_value();
               });
  const auto granular = [](Granularity g) { return [g](const QuantSpec& s) { return s.storage == Storage::none && s.granularity == g; }; };
  group.integer({key + QStringLiteral(".group_size"), tr("Group size"), tr("Inputs that share one scale; must divide every layer's number of inputs."), {}, when(granular(Granularity::group))},
                1, 1 << 20, get(&QuantSpec::group_size), set(&QuantSpec::group_size));
  group.integer({key + QStringLiteral(".block_rows"), tr("Block rows"), tr("Output channels of a block that shares one scale."), {}, when(granular(Granularity::block))}, 1, 1 << 20,
                get(&QuantSpec::block_rows), set(&QuantSpec::block_rows));
  group.integer({key + QStringLiteral(".block_cols"), tr("Block columns"), tr("Inputs of a block that shares one scale."), {}, when(granular(Granularity::block))}, 1, 1 << 20,
                get(&QuantSpec::block_cols), set(&QuantSpec::block_cols));
  if (role != SpecRole::Cache)
    group.integer({key + QStringLiteral(".heads"), tr("Heads"), tr("Number of heads along the rows."), {}, when(granular(Granularity::head))}, 0, 1 << 16, get(&QuantSpec::heads),
                set(&QuantSpec::heads));
  group.boolean({key + QStringLiteral(".round_zero_point"), tr("Integer zero point"), tr("Off: the zero point stays a float."), {},
                 when([integers](const QuantSpec& s) { return integers(s) && !s.symmetric; })},
                get(&QuantSpec::round_zero_point), set(&QuantSpec::round_zero_point));
  const auto symmetricIntegers = [integers](const QuantSpec& s) { return integers(s) && s.symmetric; };
  group.boolean({key + QStringLiteral(".narrow_range"), tr("Narrow range"), tr("Drops the lowest code, so that codes are symmetric too."), {}, when(symmetricIntegers)},
                get(&QuantSpec::narrow_range), set(&QuantSpec::narrow_range));
  group.boolean({key + QStringLiteral(".full_scale"), tr("Full scale"), tr("Scale = largest value / half the code range, as compressed-tensors does; off: as LLMC and AutoGPTQ do."), {},
                 when(symmetricIntegers)},
                get(&QuantSpec::full_scale), set(&QuantSpec::full_scale));
  QStringList scaleTypes{QString(), "float32", "float16", "bfloat16"}, scaleTitles{tr("By the target, else float16"), "float32", "float16", "bfloat16"};
  if (role != SpecRole::Weights) scaleTypes.removeFirst(), scaleTitles.removeFirst();
  group.choice({key + QStringLiteral(".scale_type"), tr("Scale format"), tr("How the target format stores scales; what is evaluated is rounded the same way. By the target: as its engines compute."), {}, when(always)},
               scaleTypes, scaleTitles,
               [at](const Recipe& r) { const auto* s = at(r); return s && !s->scale_type_open ? QString::fromStdString(to_text(s->scale_type)) : QString(); },
               [access](Recipe& r, const QString& v) {
                 const auto type = v.isEmpty() ? std::optional(QuantSpec().scale_type) : parse_scale_type(v.toStdString());
                 if (auto* s = access(r); s && type) s->scale_type = *type, s->scale_type_open = v.isEmpty();
                 return type.has_value();
               });
  if (role != SpecRole::Weights) {
    group.boolean({key + QStringLiteral(".dynamic"), tr("Dynamic"),
                   role == SpecRole::Cache ? tr("Ranges are computed for each token; off: fixed ones, taken from the calibration text.")
                                           : tr("Ranges are computed at each call. Off: one range for each linear's input, taken from the calibration text; such ranges have one scale per tensor, so that Scales changes too."), {},
                   when(always)},
                  get(&QuantSpec::dynamic), [access, role](Recipe& r, bool on) {
                    auto* s = access(r);
                    if (!s) return;
                    s->dynamic = on;
                    const bool cache = role == SpecRole::Cache;
                    if (!on && !(cache && s->granularity == Granularity::head)) s->granularity = Granularity::tensor;
                    if (on && cache && s->granularity == Granularity::tensor) s->granularity = Granularity::token;
                  });
    return;
  }
  group.choice({key + QStringLiteral(".range"), tr("Range"), tr("How the range of each scale is found."), {}, when(always)}, {"minmax", "mse", "hqq"},
               {tr("Smallest to largest"), tr("Least squared error"), tr("Half-quadratic (HQQ)")},
               [at](const Recipe& r) { const auto* s = at(r); return s ? QString::fromStdString(to_text(s->range)) : QString(); },
               [access](Recipe& r, const QString& v) {
                 const auto range = parse_range_method(v.toStdString());
                 if (auto* s = access(r); s && range) s->range = *range;
                 return range.has_value();
               });
  const auto ranged = [](RangeMethod m) { return [m](const QuantSpec& s) { return s.range == m && (s.storage == Storage::none || m == RangeMethod::hqq); }; };
  group.integer({key + QStringLiteral(".mse_grid"), tr("Grid steps"), tr("Shrink steps tried."), {}, when(ranged(RangeMethod::mse))}, 1, 10000, get(&QuantSpec::mse_grid), set(&QuantSpec::mse_grid));
  group.real({key + QStringLiteral(".mse_max_shrink"), tr("Largest shrink"), tr("Largest shrink tried, as a part of the range."), {}, when(ranged(RangeMethod::mse))}, 0, 0.999, get(&QuantSpec::mse_max_shrink),
             set(&QuantSpec::mse_max_shrink));
  group.real({key + QStringLiteral(".mse_norm"), tr("Norm"), tr("The error counts to this power."), {}, when(ranged(RangeMethod::mse))}, 0.1, 10, get(&QuantSpec::mse_norm), set(&QuantSpec::mse_norm));
  group.real({key + QStringLiteral(".hqq_norm"), tr("Norm p"), tr("The sparse norm of the error."), {}, when(ranged(RangeMethod::hqq))}, 0.05, 1, get(&QuantSpec::hqq_norm), set(&QuantSpec::hqq_norm));
  group.real({key + QStringLiteral(".hqq_beta"), tr("Beta"), tr("Weight of the quadratic term at the start."), {}, when(ranged(RangeMethod::hqq))}, 1e-6, 1e6, get(&QuantSpec::hqq_beta), set(&QuantSpec::hqq_beta));
  group.real({key + QStringLiteral(".hqq_kappa"), tr("Kappa"), tr("Growth of beta per iteration."), {}, when(ranged(RangeMethod::hqq))}, 1, 100, get(&QuantSpec::hqq_kappa), set(&QuantSpec::hqq_kappa));
  group.integer({key + QStringLiteral(".hqq_iterations"), tr("Iterations"), {}, {}, when(ranged(RangeMethod::hqq))}, 0, 1000, get(&QuantSpec::hqq_iterations), set(&QuantSpec::hqq_iterations));
}

}  // namespace qb::views
