"""Every zoo's models under one name each."""
import model_zoo
import zoo_dense
import zoo_experts
import zoo_hybrid

ZOO_OF = {name: zoo for zoo in (model_zoo, zoo_dense, zoo_experts, zoo_hybrid) for name in zoo.MODELS}
assert len(ZOO_OF) == sum(len(zoo.MODELS) for zoo in (model_zoo, zoo_dense, zoo_experts, zoo_hybrid)), "a name stands in two zoos"


def make_model(name):
    return ZOO_OF[name].make_model(name)


def save_model(name, folder):
    return ZOO_OF[name].save_model(name, folder)


def save_fused(name, folder):
    return model_zoo.fuse(save_model(name, folder), folder)
