"""What a loaded text model can read: the rows of its embedding matrix and of its tables of positions."""

from typing import Any

from torch import nn

from barycenter.fusion.errors import JobError

_RELATIVE = ("rel_", "relative", "bias")


def vocabulary_size(model: nn.Module) -> int | None:
    """Token ids that a model has embeddings for, or None where it does not look ids up in a matrix."""
    for part in (model, getattr(model, "text_model", None)):
        try:
            matrix: Any = part.get_input_embeddings()  # type: ignore[union-attr,operator]
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(matrix, nn.Embedding):
            return matrix.num_embeddings
    return None


def position_table_size(model: nn.Module) -> int | None:
    """Tokens that a model's learned tables of absolute positions hold, or None where it has none.

    Tables whose rows up to the padding's are not for tokens (RoBERTa's family, data2vec, ESM) and those that leave out
    a fixed number of rows (BART's family) hold that many fewer. Rotary embeddings that follow the longest text read so
    far (``dynamic``) make a vector depend on others above their original length. MPT makes its biases for as many
    tokens as its configuration says. What a model's towers for pictures and sounds hold says nothing about texts.
    """
    elsewhere = _other_towers(model)
    named = [(name, part) for name, part in model.named_modules() if not f"{name}.".startswith(elsewhere)]
    rotary: list[Any] = [part for _, part in named if getattr(part, "rope_type", None) == "dynamic"]
    held = [int(part.original_max_seq_len) for part in rotary if hasattr(part, "original_max_seq_len")]
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", None) == "mpt":
        held.append(int(config.max_seq_len))
    for name, table in named:
        last = name.rpartition(".")[2]
        if not isinstance(table, nn.Embedding) or any(word in name for word in _RELATIVE):
            continue
        if last not in ("position_embeddings", "position_embedding", "embed_positions", "wpe", "pos_embed"):
            continue
        offset = int(getattr(table, "offset", 0))
        shift = 0 if offset or table.padding_idx is None else table.padding_idx + 1
        if "sinusoidal" not in type(table).__name__.lower():  # such a table grows with the text
            held.append(table.num_embeddings - offset - shift)
    return min(held, default=None)


def _other_towers(model: nn.Module) -> tuple[str, ...]:
    """Names, each with a dot behind it, of the parts of a model that have a configuration other than its text's."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        return ()
    texts = (type(config), type(config.get_text_config()))
    parts = [(name, getattr(part, "config", None)) for name, part in model.named_modules() if name]
    return tuple(f"{name}." for name, own in parts if hasattr(own, "get_text_config") and type(own) not in texts)


def first_id_without_embedding(tokenizer: Any, model: nn.Module, name: str) -> int | None:
    """The first id that the model has no embedding for, where the tokenizer has special tokens beyond its matrix.

    Args:
        tokenizer: The folder's.
        model: Loaded.
        name: The encoder's name for the message.

    Returns:
        None where there is no such token.

    Raises:
        JobError: Ordinary tokens lie beyond the matrix, so that texts could not be read.
    """
    rows = vocabulary_size(model)
    if rows is None or len(tokenizer) <= rows:
        return None
    special = set(tokenizer.all_special_tokens)
    beyond = [token for token, number in tokenizer.get_vocab().items() if number >= rows]
    if ordinary := sorted(token for token in beyond if token not in special):
        raise JobError(
            "encoder",
            f"{name}: its tokenizer has {len(tokenizer)} tokens, but its model embeds {rows} ({ordinary[0]!r} has no "
            "embedding); the folder mixes files of two models, or the matrix was not resized after tokens were added",
        )
    return rows if beyond else None
