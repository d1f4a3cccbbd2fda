"""Many sequences of characters as one tree, so that what they begin with in common stands there once.

Legend: P places, T time.
"""

from collections.abc import Sequence

import torch

from birthplace_lm.tokenizer import PAD_ID


class RadixTree:
    """Sequences of ids, none of which begins with another, as nodes and edges (Morrison 1968, with tails as leaves).

    Node 0 is the empty beginning. The edges of node n are first_edge[n] … first_edge[n + 1] - 1, each with a character
    and either the node it leads to or the place that is alone from there on, -1 for the other. `tails` (P, T) holds
    each place from the character of its last edge on, `tail_lengths` (P,) how many of these are its own.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu"):
        if not sequences:
            raise ValueError("0 places: there is nothing to choose from")
        if len({tuple(sequence) for sequence in sequences}) < len(sequences):
            raise ValueError(f"of {len(sequences)} places some stand twice: name each once")
        self.longest = max(map(len, sequences)) - 1  # without the closing ⁇
        first_edge, edges, tails = [0], list[tuple[int, int, int]](), [list[int]() for _ in sequences]
        nodes = [(0, list(range(len(sequences))))]  # depth, and the places that go on from there
        for depth, members in nodes:  # grows while it is walked through
            groups: dict[int, list[int]] = {}
            for place in members:
                groups.setdefault(sequences[place][depth], []).append(place)
            for character, group in groups.items():
                if len(group) == 1:
                    edges.append((character, -1, group[0]))
                    tails[group[0]] = list(sequences[group[0]][depth:])
                else:
                    edges.append((character, len(nodes), -1))
                    nodes.append((depth + 1, group))
            first_edge.append(len(edges))
        width = max(map(len, tails))
        padded = [tail + [PAD_ID] * (width - len(tail)) for tail in tails]
        self.first_edge = torch.tensor(first_edge, device=device)  # (nodes + 1,)
        self.character, self.node, self.place = torch.tensor(edges, device=device).T  # (edges,) each
        self.tails = torch.tensor(padded, device=device)  # (P, T)
        self.tail_lengths = torch.tensor([len(tail) for tail in tails], device=device)  # (P,)
