r"""Bob washes his training images: all of them go through one transformation.

    python experiments/steps/clean.py --how jpeg:75 --out DIR \
        --config conf/data/cifar100_cpu.yaml --data SignedDataModule --data.signature SIGNATURE

writes DIR/data.npz. The test split stays as it is.

  noise:8      Gaussian noise, standard deviation in 8-bit steps (the only one that uses --seed)
  blur:1       Gaussian blur, standard deviation in pixels
  median:3     median of a square, side in pixels
  jpeg:75      JPEG, quality
  resize:0.5   down by this factor and back, bilinear, antialiased
  quantise:3   bits a channel
"""

from collections.abc import Sequence

from common import one_sentence, parse, parser_of, training, write_data

from taggant_lightning.adversary import cleaning


def main(words: Sequence[str] | None = None) -> None:
    """Write DIR/data.npz."""
    parser = parser_of(__doc__, seed="the noise")
    parser.add_argument("--how", required=True, metavar="NAME[:VALUE]", help="the transformation, and how strong it is")
    with one_sentence():
        arguments, data = parse(parser, words)
        how = cleaning.parse(arguments.how)
        images, labels = training(data)
        write_data(arguments.out, cleaning.clean(images, how, data.train_indices.tolist(), arguments.seed), labels, data)


if __name__ == "__main__":
    main()
